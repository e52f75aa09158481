"""Readings of a store take from the cache what has not changed, and nothing else."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import sweeps
from sweeps.dag.expand import Dag, Step
from sweeps.estimate.bill import Bill, attempt_bills
from sweeps.execute.steps.provenance import record_sweep, result_provenance
from sweeps.resolve import dag_of
from sweeps.spec.resources import Devices
from sweeps.spec.spec import parse_sweep
from sweeps.store import listing
from sweeps.store.leases import Lease, attempts
from sweeps.store.listing import Listing
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store
from sweeps.watch.reading_cache import FOLDER
from sweeps.watch.status import status
from sweeps.watch.step_readings import read_steps
from sweeps.watch.timeline import attempt_spans

PRICE = 2.0


@pytest.fixture
def dag(small_spec: dict[str, Any]) -> Dag:
    return dag_of(parse_sweep(small_spec))


@pytest.fixture
def store(
    small_spec: dict[str, Any],
    dag: Dag,
    tmp_path: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Store:
    """A store whose steps are done but the last, of which nothing is there; its times count at once."""
    monkeypatch.setattr(listing, "SETTLED_SECONDS", -1.0)
    store = Store(tmp_path / "store")
    store.create()
    record_sweep(store, parse_sweep(small_spec | {"hardware": {"dollars_per_hour": PRICE}}), dag)
    for number, step in enumerate(dag.steps[:-1]):
        finish(store, step, loss=3.0 + number)
    return store


def finish(store: Store, step: Step, loss: float, lost: int = 1) -> None:
    """Write what a run leaves, after attempts that were lost half way."""
    for number in range(1, lost + 2):
        lease = Lease.claim(store, step.id, number, cpus=1, gpus=0.5, nodes=1, members=1)
        assert lease
        done = step.ends if number > lost else step.ends // 2
        lease.progress = {"began": 0, "steps_done": done, "steps": step.ends}
        lease.started -= 1800.0 * number
        if number > lost:
            measured = {"loss": loss, "loss_se": 0.1, "bits_per_byte": 1.0, "epochs": 1.0}
            store.commit(step.id, result_provenance(step) | measured | {"seconds": {"train": 9.0}})
        lease.end(Ending.DONE if number > lost else Ending.LOST)


@pytest.fixture
def read(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, ...]]]:
    """The files of steps that are read, in order."""
    places: list[tuple[str, ...]] = []
    plain = Store.read_bytes

    def noted(self: Store, *place: str, **part: Any) -> bytes | None:
        if len(place) > 1 and place[0] != "drivers":
            places.append(place)
        return plain(self, *place, **part)

    monkeypatch.setattr(Store, "read_bytes", noted)
    yield places


def seen(store: Store) -> tuple[str, str, str]:
    """All that is shown of a store."""
    table = sweeps.results(store.root).to_csv()
    return json.dumps(status(store).to_dict()), table, repr(attempt_spans(store))


def test_what_has_ended_is_read_once(store: Store, dag: Dag, read: list[tuple[str, ...]]) -> None:
    first = seen(store)
    assert {place[0] for place in read} == {step.id for step in dag.steps[:-1]}
    read.clear()
    assert seen(store) == first
    teachers = {step.teacher.id for step in dag.steps if step.teacher}
    assert set(read) <= {
        (teacher, "result.json") for teacher in teachers
    }  # their losses are not their students'
    finish(store, dag.steps[-1], loss=9.0)
    read.clear()
    found = status(store)
    assert {place[0] for place in read} == {dag.steps[-1].id}
    assert found.of("done") == list(found.steps)


def test_damaged_entries_of_the_cache_are_read_from_the_store(
    store: Store, own_cache: Path, read: list[tuple[str, ...]]
) -> None:
    first = seen(store)
    for value in ("'[3, \"x\"]'", "'7'", "'{'", "NULL", "x'00'", "replace(value, '1', '2')"):
        for file in (own_cache / FOLDER).glob("*.sqlite"):
            with closing(sqlite3.connect(file)) as database, database:
                database.execute(f"UPDATE readings SET value = {value}")
        read.clear()
        assert seen(store) == first, value
        assert read
        read.clear()
        assert seen(store) == first  # and written anew
    assert {name for _, name, *_ in read} == {"result.json"}  # of teachers, which no cache has


def test_a_summary_costs_what_its_attempts_cost(store: Store, dag: Dag) -> None:
    status(store)  # into the cache
    bills = [
        bill
        for step in dag.steps
        for bill in attempt_bills(
            step.flops_to_spend, attempts(store, step.id), Devices(dollars_per_hour=PRICE)
        )
    ]
    whole, spent = sum(bills, Bill()), status(store).spent
    assert (spent.flops, spent.gpu_hours, spent.dollars) == pytest.approx(
        (whole.flops, whole.gpu_hours, whole.dollars), rel=1e-9
    )
    assert len(attempt_spans(store)) == len(bills)


def test_nothing_stale_or_foreign_is_shown(store: Store, dag: Dag, read: list[tuple[str, ...]]) -> None:
    """Removed, edited in place at equal length and time, tried again, or another store at the same path."""
    deleted, edited, tried, *_ = dag.steps
    seen(store)
    Path(store.path, deleted.id, "result.json").unlink()
    path = Path(store.path, edited.id, "result.json")
    before = path.stat()
    path.write_text(path.read_text().replace('"loss": 4.0', '"loss": 8.0'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert Lease.claim(store, tried.id, 3)
    read.clear()
    found = {step.id: step for step in status(store).steps}
    assert found[deleted.id].state != "done"
    assert found[tried.id].attempts == 3
    assert {place[0] for place in read} == {deleted.id, edited.id, tried.id}
    assert 8.0 in set(sweeps.results(store.root)["loss"])

    Path(store.path).rename(f"{store.path}-old")
    store.create()
    for name in ("sweep.json", "steps.json"):
        store.write_bytes(Path(f"{store.path}-old", name).read_bytes(), name)
    finish(store, deleted, loss=5.5, lost=0)
    assert [step.state for step in status(store).steps].count("done") == 1
    assert list(sweeps.results(store.root)["loss"]) == [5.5]
    assert len(attempt_spans(store)) == 1


def test_what_has_just_changed_is_not_kept(store: Store, dag: Dag, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file system's clock may give another change in the same moment the same time."""
    monkeypatch.setattr(listing, "SETTLED_SECONDS", 600.0)
    assert Listing(store).stamps == {}
    assert len(read_steps(store).finished) == len(dag.steps) - 1


@pytest.mark.parametrize("damage", [b"not a database", b"", None])
def test_a_cache_that_cannot_be_used_is_not_needed(
    store: Store, own_cache: Path, damage: bytes | None, read: list[tuple[str, ...]]
) -> None:
    first = seen(store)
    files = list((own_cache / FOLDER).iterdir())
    assert len(files) == 2
    if damage is None:
        for file in files:
            file.unlink()
        (own_cache / FOLDER).rmdir()
        (own_cache / FOLDER).write_text("no directory")
        assert seen(store) == first
        return
    for file in files:
        file.write_bytes(damage)
    assert seen(store) == first
    read.clear()
    status(store)
    assert not read  # it was written anew
