"""A webhook is told when a sweep is done, halted or fails; it never stops a sweep, and its URL stays secret."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from distlaw.cli import app
from scaling.errors import InputError
from sweeps.execute.state import State
from sweeps.operations import notify
from sweeps.operations.notify import Webhook
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep


class Receiver(BaseHTTPRequestHandler):
    taken: list[dict[str, Any]]
    code = 200
    location = ""

    def do_POST(self) -> None:
        self.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.code)
        if self.location:
            self.send_header("Location", self.location)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[Receiver]]]:
    handler = type("Handler", (Receiver,), {"taken": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/secret", handler
        server.shutdown()
        thread.join()


@pytest.fixture
def state(small_spec: dict[str, Any], own_cache: Path) -> State:
    return State(dag=dag_of(parse_sweep(small_spec)), cost=lambda step: 1.0, found=set())


def test_failures_are_told_at_once_and_then_together(
    receiver: tuple[str, type[Receiver]], state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, handler = receiver
    webhook = Webhook(url, "small", "s3://bucket/small")
    webhook.watch(state)
    assert not webhook.sending
    first, second, third, *_ = state.dag.steps
    state.fail(first.id, "no room")
    webhook.watch(state)
    state.fail(second.id, "diverged")
    state.fail(third.id, "diverged too")
    for _ in range(5):
        webhook.watch(state)
    assert len(webhook.sending) == 1
    monkeypatch.setattr(notify, "QUIET_SECONDS", 0.0)
    webhook.watch(state)
    webhook.watch(state)
    state.halted = "caps.flops reached"
    webhook.end(state)
    texts = sorted(each["text"] for each in handler.taken)
    assert len(texts) == 3
    assert [each for each in texts if "1 step failed; the last:" in each and "no room" in each]
    assert [each for each in texts if "3 steps failed; the last:" in each and "diverged too" in each]
    assert [each for each in texts if "halted: caps.flops reached" in each]
    assert {each["event"] for each in handler.taken} == {"failing", "halted"}


def test_a_receiver_that_refuses_or_is_gone_stops_nothing_and_its_url_is_not_logged(
    receiver: tuple[str, type[Receiver]], state: State, caplog: pytest.LogCaptureFixture
) -> None:
    url, handler = receiver
    handler.code = 500
    with caplog.at_level(logging.WARNING, "distlaw"):
        Webhook(url, "small", "store").end(state)
        Webhook("http://127.0.0.1:9/secret", "small", "store").end(state)
    assert caplog.text.count("was not taken") == 2
    assert "(500)" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_told_as_it_would_lose_the_message(
    receiver: tuple[str, type[Receiver]], state: State, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    url, handler = receiver
    handler.code, handler.location = code, "https://new.example.com/secret"
    with caplog.at_level(logging.WARNING, "distlaw"):
        Webhook(url, "small", "store").end(state)
    assert len(handler.taken) == 1
    assert f"({code}: the URL redirects to new.example.com; set the variable to the URL" in caplog.text
    assert "secret" not in caplog.text


def test_a_url_of_another_kind_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notify.VARIABLE, "file:///etc/secret")
    with pytest.raises(InputError) as error:
        Webhook.from_environment("small", "store")
    assert "secret" not in str(error.value)
    monkeypatch.setenv(notify.VARIABLE, " ")
    assert Webhook.from_environment("small", "store") is None


def test_the_command_tells_when_a_sweep_is_done(
    receiver: tuple[str, type[Receiver]],
    small_spec: dict[str, Any],
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, handler = receiver
    monkeypatch.setenv(notify.VARIABLE, url)
    small_spec |= {"teachers": [], "students": [], "supervised": [{"params": ["3k"], "tokens": ["32k"]}]}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(small_spec))
    store = str(tmp_path / "store")
    command = [
        "sweep",
        "run",
        str(tmp_path / "spec.yaml"),
        "--store",
        store,
        "--executor",
        "inline",
        "--metrics",
        "0",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "metrics at http://127.0.0.1:" in done.output
    (told,) = handler.taken
    assert (told["event"], told["done"], told["store"]) == ("done", 1, store)
    kept = [path.read_bytes() for path in Path(store).rglob("*") if path.is_file()]
    assert not any(b"/secret" in content for content in kept)
