"""Metrics of a sweep are those of its store, in the format of Prometheus, and cost the store little."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import sweeps
from scaling.errors import InputError
from sweeps.operations import metrics
from sweeps.operations.metrics import DASHBOARD, StoreMetrics, address_of, serve_metrics
from sweeps.store.leases import Lease
from sweeps.store.store import Store


@pytest.fixture
def swept(small_spec: dict[str, Any], own_cache: Path, tmp_path: Path) -> Store:
    """A sweep of two runs, the first of which was tried twice."""
    small_spec |= {"teachers": [], "students": [], "caps": {"flops": 1e18}}
    small_spec["supervised"] = [{"params": ["3k"], "tokens": ["32k"], "seeds": [0, 1]}]
    loaded = sweeps.load(small_spec)
    store = Store(tmp_path / "store")
    store.create()
    lost = Lease.claim(store, loaded.dag.steps[0].id, 1)
    assert lost
    lost.conclude(RuntimeError("lost"))
    assert loaded.run(store.root, executor="inline").complete
    return store


def samples(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(distlaw_\S+) (\S+)$", text, re.MULTILINE)}


def test_what_is_served_is_what_the_store_says(swept: Store) -> None:
    with serve_metrics(swept, "0") as url, urllib.request.urlopen(url) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    found = samples(text)
    assert found['distlaw_steps{state="done"}'] == 2
    assert found['distlaw_steps{state="failed"}'] == 0
    assert found["distlaw_attempts_total"] == 3
    assert found["distlaw_retries_total"] == 1
    assert found['distlaw_spent{unit="flops"}'] == pytest.approx(sweeps.status(swept.root).spent.flops)
    assert found['distlaw_cap{unit="flops"}'] == 1e18
    assert found["distlaw_store_up"] == 1
    assert found["distlaw_flops_left"] == 0
    asked = set(re.findall(r"distlaw_\w+", Path(DASHBOARD).read_text())) - {"distlaw_sweep"}
    assert asked <= {
        name.partition("{")[0] for name in found
    }  # the dashboard shows nothing that is not there
    assert json.loads(Path(DASHBOARD).read_text())["panels"]


def test_many_scrapers_read_the_store_once_and_a_lost_store_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read: list[int] = []

    def failing(store: Store) -> None:
        read.append(1)
        raise OSError("gone")

    monkeypatch.setattr(metrics, "status", failing)
    collector = StoreMetrics(Store(tmp_path))
    for _ in range(5):
        found = {metric.name: metric.samples[0].value for metric in collector.collect()}
        assert (found["distlaw_store_up"], found["distlaw_store_failures"]) == (0, 1)
    assert len(read) == 1
    monkeypatch.setattr(metrics, "AGE_SECONDS", 0.0)
    list(collector.collect())
    assert len(read) == 2
    (told,) = caplog.messages  # once, however often it fails for one reason
    assert told == f"metrics: {tmp_path} cannot be read, distlaw_store_up is 0: gone"
    with serve_metrics(Store(tmp_path), "0") as url, urllib.request.urlopen(url) as answer:
        assert samples(answer.read().decode())["distlaw_store_up"] == 0
    monkeypatch.setattr(metrics, "status", lambda _: None)
    list(collector.collect())
    assert collector.told == ""


def test_a_port_alone_is_one_of_this_machine() -> None:
    assert address_of("9400") == ("127.0.0.1", 9400)
    assert address_of("0.0.0.0:9400") == ("0.0.0.0", 9400)
    assert address_of("[::1]:9400") == ("::1", 9400)
    for wrong in ("http", "host:", "99999", "-1"):
        with pytest.raises(InputError, match=r"--metrics: .* is no port"):
            address_of(wrong)
    with pytest.raises(InputError, match=r"^--listen: 'abc'"):
        address_of("abc", "--listen")


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with serve_metrics(store, "0") as url:
        port = url.rsplit(":", 1)[1].partition("/")[0]
        with (
            pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}"),
            serve_metrics(store, port),
        ):
            pass
