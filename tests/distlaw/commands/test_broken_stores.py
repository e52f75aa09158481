"""Stores and settings that are damaged, forbidden, away or mistyped: a sentence and exit code 2 in every verb."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import fsspec
import pytest
import yaml

from distlaw import cli
from scaling.errors import InputError
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.jobs import main as run_step
from sweeps.execute.scheduler import run
from sweeps.execute.steps.provenance import record_sweep
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store
from sweeps.watch.status import status

SPEC = {
    "name": "broken",
    "corpus": {"vocab": 300, "context": 32, "heldout": 0.1},
    "training": {"batch_tokens": 64, "warmup_tokens": 1600},
    "supervised": [{"params": ["3k"], "tokens": ["32k"]}],
}
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a spec, and the store of its one run."""
    place = tmp_path_factory.mktemp("broken")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DISTLAW_CACHE", str(place / "cache"))
        text = "\n\n".join(
            f"And it was day {n}, and the king spoke to the {n % 7} elders." for n in range(1800)
        )
        (place / "text.txt").write_text(text)
        spec = SPEC | {"corpus": {**SPEC["corpus"], "source": str(place / "text.txt")}}  # type: ignore[dict-item]
        (place / "spec.yaml").write_text(yaml.safe_dump(spec))
        sweep, store = parse_sweep(spec), Store(place / "store")
        dag = dag_of(sweep)
        store.create()
        record_sweep(store, sweep, dag)
        assert run(dag, store, InlineExecutor(store), lambda _: 1.0, lambda _: None, sweep).complete
    return place


@pytest.fixture
def store(swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, to be broken."""
    monkeypatch.setenv("DISTLAW_CACHE", str(swept / "cache"))
    return Path(shutil.copytree(swept / "store", tmp_path / "store"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command in this process: exit code, output, complaints."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["distlaw", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return command


def step_of(store: Path) -> Path:
    return next(path.parent for path in store.glob("*/step.json"))


def change(file: Path, **fields: Any) -> None:
    """Set fields of a JSON file; those that are None go."""
    record = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({name: value for name, value in record.items() if value is not None}))


def _step(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "step.json").read_text())
    return found


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "brackets": (
        lambda step: (step / "result.json").write_text("[" * 200_000),
        "not JSON, or nested too deeply",
    ),
    "truncated": (
        lambda step: (step / "result.json").write_text((step / "result.json").read_text()[:300]),
        "result.json: damaged",
    ),
    "empty": (lambda step: (step / "result.json").write_text(""), "result.json: damaged"),
    "speed": (
        lambda step: change(step / "result.json", throughput={"tokens_per_second": "fast"}),
        "throughput.tokens_per_second is 'fast', expected a number of at least 0",
    ),
    "utilization": (
        lambda step: change(step / "result.json", throughput={"mfu": math.nan}),
        "throughput.mfu is nan, expected a number",
    ),
    "phases": (
        lambda step: change(step / "result.json", throughput={"phases": {"data": -1}}),
        "throughput.phases is {'data': -1}, expected an object of numbers, none of them negative",
    ),
    "negative": (
        lambda step: change(step / "result.json", loss=-1.0),
        "loss is -1.0, expected a number of nats",
    ),
    "text": (
        lambda step: change(step / "result.json", flops={"total": "x"}),
        "flops is {'total': 'x'}, expected",
    ),
    "bare": (lambda step: change(step / "result.json", flops=None), "a run without 'flops'"),
    "odd step": (
        lambda step: change(step / "result.json", step={"schema": 5, "kind": "pretrain"}),
        "its record of the step is damaged ('corpus' is missing); delete",
    ),
    "odd kind": (
        lambda step: change(step / "result.json", step={"schema": 5, "kind": ["pretrain"]}),
        "the step's kind is ['pretrain'], expected a text",
    ),
    "endless step": (
        lambda step: change(step / "result.json", step=_step(step) | {"seed": math.inf}),
        "its record of the step is damaged (",
    ),
    "huge": (
        lambda step: change(step / "result.json", flops={"total": 10**400}),
        "expected an object of numbers",
    ),
    "link": (
        lambda step: ((step / "result.json").unlink(), (step / "result.json").symlink_to("/nowhere/x")),
        "is a link to /nowhere/x, which does not exist",
    ),
    "folder": (
        lambda step: ((step / "result.json").unlink(), (step / "result.json").mkdir()),
        "result.json: cannot be read",
    ),
    "linked step": (
        lambda step: (shutil.rmtree(step), step.symlink_to("/nowhere/x")),
        "is a link to /nowhere/x, which does not exist",
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_result_is_named_and_not_done(how: str, store: Path, call: Call) -> None:
    damage, message = DAMAGE[how]
    damage(step_of(store))
    for verb in (("sweep", "results"), ("fit",)):
        code, _, complaint = call(*verb, store)
        assert (code, complaint.startswith("error: ")) == (2, True), complaint
        assert message in complaint
    if how in ("bare", "odd step", "endless step"):  # of which another version may have made sense
        return
    code, out, _ = call("sweep", "status", store)
    assert (code, "1 failed of 1 steps" in out) == (0, True)
    (step,) = status(Store(store)).steps
    assert message in step.reason
    assert message in call("sweep", "retry", store)[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ending": "exploded"}, "ending is 'exploded', expected one of done, failed"),
        ({"ending": [1]}, "ending is .1., expected one of"),
        ({"ending": None}, "ending is missing"),
        ({"steps_done": "many"}, "steps_done is 'many', expected a number of at least 0"),
        ({"steps": "x"}, "steps is 'x', expected a number"),
        ({"elapsed": -3}, "elapsed is -3, expected a number of at least 0"),
        ({"cpus": -1}, "cpus is -1, expected a number of at least 1"),
        ({"members": 0}, "members is 0, expected a number of at least 1"),
        ({"began": [1]}, "began is .1., expected a number"),
        ({"reason": 3}, "reason is 3, expected a text"),
        ({"elapsed": 10**400}, "elapsed is 1000"),
        ({"loss": "low"}, "loss is 'low', expected a finite number"),
    ],
)
def test_an_end_with_odd_fields_is_named(
    fields: dict[str, Any], message: str, store: Path, call: Call
) -> None:
    change(step_of(store) / "attempts" / "0001.end.json", **fields)
    for verb in ("status", "gc", "retry"):
        code, _, complaint = call("sweep", verb, store)
        assert code == 2, complaint
        with pytest.raises(InputError, match=rf"0001.end.json: damaged \({message}"):
            status(Store(store))
        assert "0001.end.json: damaged (" in complaint


def test_a_method_that_ascends_ends_with_a_negative_training_loss(store: Path, call: Call) -> None:
    change(step_of(store) / "attempts" / "0001.end.json", loss=-15.6)
    code, _, complaint = call("sweep", "status", store)
    assert code == 0, complaint


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sweep.json", '{"spec": 3}'),
        ("sweep.json", '{"spec": {}}'),
        ("sweep.json", "[" * 200_000),
        ("steps.json", '{"steps": 3}'),
        ("steps.json", '{"steps": [[1]]}'),
        (
            "steps.json",
            '{"steps": [{"id": "a", "kind": "pretrain", "label": "b", "needs": [1], "flops": 1}]}',
        ),
        ("steps.json", '{"steps": [{"id": "a", "kind": "pretrain", "label": "b", "needs": []}]}'),
        ("drivers/odd.json", "{}"),
        ("drivers/odd.json", '{"seconds": "x", "ended": null}'),
    ],
)
def test_a_damaged_record_of_the_sweep_is_named(name: str, content: str, store: Path, call: Call) -> None:
    (store / "drivers").mkdir(exist_ok=True)
    (store / name).write_text(content)
    code, _, complaint = call("sweep", "status", store)
    assert (code, name in complaint) == (2, True), complaint


@pytest.mark.parametrize("value", ["0", "-5", "nan", "abc", "inf", "1e9"])
@pytest.mark.parametrize("name", ["DISTLAW_LEASE_SECONDS", "DISTLAW_CHECKPOINT_SECONDS"])
def test_settings_out_of_range_are_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeps.environment import seconds_from

    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"^{name}: '{value}' is no number of seconds from 0.5 to 86,400"):
        seconds_from(name, 45.0, at_least=0.5)
    monkeypatch.setenv(name, "")
    assert seconds_from(name, 45.0, at_least=0.5) == 45


def test_a_mistyped_tracker_is_refused_before_a_step_fails(
    store: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.environment import choice_from

    known = ("tensorboard", "wandb")
    monkeypatch.setenv("DISTLAW_TRACKER", "tensorbord")
    with pytest.raises(InputError, match=r"^DISTLAW_TRACKER: tensorboard, wandb, not 'tensorbord'"):
        choice_from("DISTLAW_TRACKER", known)
    monkeypatch.setenv("DISTLAW_TRACKER", "wandb")
    assert choice_from("DISTLAW_TRACKER", known) == "wandb"
    monkeypatch.delenv("DISTLAW_TRACKER")
    assert choice_from("DISTLAW_TRACKER", known) == ""


def test_an_attempt_whose_log_is_null_has_none(store: Path, call: Call) -> None:
    step = step_of(store)
    for name in ("0001.json", "0001.end.json"):
        file = step / "attempts" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {"log": None}))
    code, _, complaint = call("sweep", "logs", store, step.name)
    assert (code, "has no log" in complaint) == (2, True), complaint


@pytest.mark.parametrize("log", ["../../secret", "/etc/passwd", "a/../../../secret", "a//b", ""])
def test_logs_reads_nothing_outside_the_store(log: str, store: Path, call: Call) -> None:
    (store.parent / "secret").write_text("secret")
    step = step_of(store)
    for name in ("0001.json", "0001.end.json"):
        change(step / "attempts" / name, log=log)
    code, out, complaint = call("sweep", "logs", store, step.name)
    assert (code, out) == (2, "")
    assert f"log is {log!r}, expected a path inside the store" in complaint


def test_attempts_behind_a_dangling_link_are_named_in_every_verb(store: Path, call: Call) -> None:
    step = step_of(store)
    shutil.rmtree(step / "attempts")
    (step / "attempts").symlink_to("/nowhere/x")
    for verb in (("status",), ("gc",), ("retry",), ("cancel",), ("logs", step.name)):
        code, _, complaint = call("sweep", verb[0], store, *verb[1:])
        assert code == 2
        assert f"{step}/attempts: is a link to /nowhere/x, which does not exist" in complaint


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda file: file.write_text("{"), "damaged (Expecting"),
        (lambda file: change(file, seed="0"), "damaged (seed is '0', expected a whole number); delete it"),
        (lambda file: change(file, corpus=3), "damaged ("),
    ],
)
def test_a_damaged_step_json_is_named_where_it_counts(
    damage: Callable[[Path], object], why: str, store: Path, call: Call
) -> None:
    """FLOPs of a step that is no longer in the sweep are known from its step.json alone."""
    step, steps = step_of(store), store / "steps.json"
    before = status(Store(store)).spent.flops
    steps.write_text(json.dumps({"steps": []}))
    assert status(Store(store)).spent.flops == pytest.approx(before)
    damage(step / "step.json")
    code, _, complaint = call("sweep", "status", store)
    assert code == 2
    assert f"{step}/step.json: {why}" in complaint


def test_fit_says_what_it_leaves_out_of_a_store(store: Path, call: Call) -> None:
    step = step_of(store)
    shutil.copytree(step, store / ("0" * 16))
    change(store / ("0" * 16) / "result.json", id="0" * 16)
    for verb in (("fit", store), ("check", store), ("sweep", "results", store)):
        assert f"left out 1 run ({'0' * 16}): the step that the record" in call(*verb)[2]


def test_the_whole_reason_of_a_damaged_result_is_shown(store: Path, call: Call) -> None:
    step = step_of(store)
    (step / "result.json").write_text("{")
    code, out, _ = call("sweep", "status", store)
    assert code == 0
    assert "…" not in out
    assert "delete it to run" in " ".join(out.split())


def test_a_store_behind_a_dangling_link_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/nowhere/x")
    with pytest.raises(InputError, match="is a link to /nowhere/x, which does not exist"):
        Store(tmp_path / "link").create()


@pytest.mark.parametrize("verb", ["fit", "check", "compare-laws", "compare-methods"])
def test_the_url_of_a_store_is_no_file(verb: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths make one slash of two."""
    import sweeps

    asked = []

    def results(root: str) -> None:
        asked.append(root)
        raise InputError(f"{root}: looked at")

    monkeypatch.setattr(sweeps, "results", results)
    code, _, complaint = call(verb, "s3://bucket/some/store")
    assert (code, complaint) == (2, "error: s3://bucket/some/store: looked at\n")
    assert asked == ["s3://bucket/some/store"]


@pytest.mark.parametrize(("module", "arguments"), [("distlaw", ["sweep", "status"]), ("sweeps.run_step", [])])
def test_a_wrong_setting_ends_commands_with_2(module: str, arguments: list[str], tmp_path: Path) -> None:
    """Records of a step too, on which otherwise every worker would fail repeatedly."""
    import os

    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, str(tmp_path)],
        env=os.environ | {"DISTLAW_CHECKPOINT_SECONDS": "nan"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: DISTLAW_CHECKPOINT_SECONDS: 'nan' is no number of seconds")
    assert done.stderr.count("\n") == 1


def test_an_empty_store_is_an_error(swept: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept)
    monkeypatch.setenv("DISTLAW_CACHE", str(swept / "cache"))
    for arguments in (
        ("sweep", "status", ""),
        ("sweep", "results", " "),
        ("sweep", "run", "spec.yaml", "--store", ""),
        ("sweep", "plan", "spec.yaml", "--store", ""),
        ("train", "spec.yaml", "--store", ""),
    ):
        code, _, complaint = call(*arguments)
        assert (code, "the path is empty" in complaint) == (2, True), (arguments, complaint)
    assert not (swept / "runs").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--student", "nonsense"), ("--student", "-1"), ("--budget", "much")]
)
def test_quickstart_reads_its_question_before_it_trains(
    option: str, value: str, call: Call, tmp_path: Path
) -> None:
    code, out, complaint = call("quickstart", "--out", tmp_path / "out", f"{option}={value}")
    assert (code, out) == (2, "")
    assert option in complaint or "student_params" in complaint
    assert not (tmp_path / "out").exists()


class Client:
    """A file system of which every call fails."""

    protocol = ("s3",)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        def fail(*_: object, **__: object) -> None:
            raise self.error

        return fail


class EndpointConnectionError(ConnectionError):
    """As botocore's, which is found by its name."""


class NoCredentialsError(Exception):
    """As botocore's."""


VERBS = [
    *(("sweep", verb) for verb in ("status", "watch", "cancel", "retry", "gc", "results")),
    ("sweep", "logs", "STORE", "abc"),
    ("sweep", "run", "spec.yaml", "--store"),
    ("train", "spec.yaml", "--store"),
]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError("Access Denied"),
            r"store s3://forbidden/x: access is denied \(Access Denied\); check",
        ),
        (EndpointConnectionError("no route"), r"cannot be (reached|used|created) \(no route\)"),
        (
            NoCredentialsError("Unable to locate credentials"),
            r"cannot be used \(Unable to locate credentials\)",
        ),
    ],
)
def test_stores_that_do_not_answer_are_told_in_every_verb(
    error: Exception, message: str, swept: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    monkeypatch.chdir(swept)
    monkeypatch.setenv("DISTLAW_CACHE", str(swept / "cache"))
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda *_, **__: (Client(error), "forbidden/x"))
    for verb in VERBS:
        arguments = ["s3://forbidden/x" if each == "STORE" else each for each in verb]
        arguments += [] if "STORE" in verb else ["s3://forbidden/x"]
        code, _, complaint = call(*arguments)
        assert code == 2, (verb, complaint)
        assert complaint.startswith("error: store s3://forbidden/x: "), (verb, complaint)
        assert re.search(message, complaint) or "denied" in message, (verb, complaint)
        assert complaint.count("\n") == 1


def test_a_step_by_itself_says_that_it_has_no_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(NoCredentialsError("Unable to locate credentials"))
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda *_, **__: (client, "b/x"))
    assert run_step(["s3://b/x", "abc"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "error: store s3://b/x: cannot be used (Unable to locate credentials); check the URL"
    )


@pytest.fixture
def buckets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    reset = Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")
    with urlopen(reset):  # moto's buckets are those of the whole process, other tests' too
        pass
    for name, value in {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield fsspec.filesystem("s3")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


def test_a_mistyped_bucket_is_refused_and_not_created(
    buckets: Any, swept: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(swept)
    monkeypatch.setenv("DISTLAW_CACHE", str(swept / "cache"))
    buckets.mkdir("sweeps")
    Store("s3://sweeps/deep/first").create()
    Store("s3://sweeps").create()
    for place in ("s3://sweep/first", "s3://sweep"):
        code, _, complaint = call("sweep", "run", "spec.yaml", "--store", place)
        assert code == 2
        assert "no bucket 'sweep'; check its name, or create it first" in complaint
        for verb in (("sweep", "status"), ("sweep", "results"), ("sweep", "gc"), ("fit",)):
            code, _, complaint = call(*verb, place)
            assert (code, "no bucket 'sweep'; check its name" in complaint) == (2, True), complaint
    code, _, complaint = call("sweep", "status", "s3://sweeps/nothing")
    assert (code, "not a sweep store (no sweep.json in it)" in complaint) == (2, True)
    assert buckets.ls("") == ["sweeps"]
