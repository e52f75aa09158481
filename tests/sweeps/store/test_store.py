"""The store: results once, whole or not at all."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.steps.step import run_step
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store


def result(step: str, loss: Any) -> dict[str, Any]:
    return {"id": step, "step": {"kind": "pretrain"}, "loss": loss}


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    root = str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}"
    found = Store(root)
    found.create()
    return found


def test_the_first_result_stands(store: Store) -> None:
    assert store.result("a") is None
    assert store.commit("a", result("a", 1.0))
    assert not store.commit("a", result("a", 2.0))
    assert store.result("a") == result("a", 1.0)


def test_other_files_are_replaced(store: Store) -> None:
    store.write({"n": 1}, "a", "step.json")
    store.write({"n": 2}, "a", "step.json")
    assert store.read("a", "step.json") == {"n": 2}
    assert list(store.steps()) == ["a"]
    store.remove("a", "step.json")
    store.remove("a", "step.json")
    assert store.read("a", "step.json") is None


def test_models_go_in_and_come_out(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    store.put_model("a", folder)
    store.put_model("a", folder)
    with store.model("a") as found:
        assert (found / "config.json").read_text() == "{}"


def test_no_number_is_lost(store: Store) -> None:
    store.commit("a", result("a", 0.1 + 0.2))
    assert (store.result("a") or {})["loss"] == 0.1 + 0.2
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.commit("b", {"loss": float("nan")})
    assert store.result("b") is None


@pytest.mark.parametrize("damage", [b"", b'{"loss": 1.', b"[]", b"\xff\xfe"])
def test_a_damaged_result_is_named(tmp_path: Path, damage: bytes) -> None:
    store = Store(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_bytes(damage)
    with pytest.raises(InputError, match=r"a/result.json: damaged"):
        store.result("a")


@pytest.mark.parametrize(
    "content",
    [{}, {"loss": 3.0}, result("b", 3.0), result("a", None), result("a", "3.0"), {"id": "a", "step": {}}],
)
def test_what_is_not_this_step_s_result_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    store = Store(tmp_path)
    store.write(content, "a", "result.json")
    with pytest.raises(InputError, match=r"a/result.json: damaged .* delete it to run its step again"):
        store.result("a")


def test_odd_stores_are_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"store nosuch://x: cannot be opened"):
        Store("nosuch://x")
    (tmp_path / "a" / "result.json").mkdir(parents=True)
    with pytest.raises(InputError, match=r"a/result.json: cannot be read \(Is a directory\)"):
        Store(tmp_path).result("a")


def _race(root: str, number: int, queue: Any) -> None:
    queue.put(Store(root).commit("a", {"by": number}))


def test_of_many_committers_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    racers = [context.Process(target=_race, args=(str(tmp_path), n, queue)) for n in range(4)]
    for racer in racers:
        racer.start()
    won = [queue.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join()
    assert sorted(won) == [False, False, False, True]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["result.json"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"store .*file/store: cannot be created"):
        Store(tmp_path / "file" / "store").create()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "its permissions must let you create files there"),
        (errno.EROFS, "its permissions must let you create files there"),
        (errno.ENOSPC, "make room there"),
        (errno.EPERM, "allows hard links"),
        (errno.EOPNOTSUPP, "allows hard links"),
    ],
)
def test_the_advice_for_a_place_without_room_for_a_store_fits_the_cause(
    number: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(InputError) as said:
        Store(tmp_path).probe()
    assert advice in str(said.value)
    assert ("hard links" in str(said.value)) == ("hard links" in advice)


def test_a_link_to_nowhere_is_not_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "attempts").symlink_to("/nowhere/x")
    for look in (lambda: Store(tmp_path).names("a", "attempts"), Store(tmp_path).contents):
        with pytest.raises(InputError, match=r"a/attempts: is a link to /nowhere/x, which does not exist"):
            look()


@pytest.mark.parametrize("model", ["../b/model", "/etc", "..", "", "a\0b", 3])
def test_a_result_names_no_model_outside_its_step(model: object, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    record = {"id": "a", "step": {"kind": "pretrain"}, "loss": 1.0, "model": model}
    (tmp_path / "a" / "result.json").write_text(json.dumps(record))
    with (
        pytest.raises(InputError, match=r"result.json: damaged \(model is .*, expected the name of"),
        Store(tmp_path).model("a"),
    ):
        pass


def test_a_full_disk_loses_nothing_and_is_reported(
    small_spec: dict[str, Any], tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while a model is being saved; once there is room the same step runs again."""
    store = Store(tmp_path / "store")
    store.create()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(store.files, "put_file", full)
        dag = dag_of(parse_sweep(small_spec | {"teachers": [], "students": []}))
        state = run(dag, store, InlineExecutor(store), lambda _: 1.0, lambda _: None)
    assert not state.failed  # it is the store that is at fault, and no step
    assert state.halted
    assert state.halted.startswith("the store is full: No space left on device: /")
    assert state.halted.endswith("make room and start again")
    assert len(dag.steps) == 2
    (step,) = (each for each in dag.steps if store.names(each.id, "attempts"))  # the other is not tried
    assert not list(tmp_path.glob("store/*/model*"))  # nothing half-written stays
    assert store.result(step.id) is None
    assert run_step(store, step)["loss"] > 0
    assert store.read(step.id, "failure.json") is None


def first_step(spec: dict[str, Any]) -> Step:
    return dag_of(parse_sweep(spec)).steps[0]
