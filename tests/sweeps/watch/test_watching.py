"""Status of a sweep read from its store, and control of the sweep through it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from distlaw.cli import app
from scaling.errors import InputError
from sweeps.dag.expand import Dag
from sweeps.estimate.bill import attempt_bills
from sweeps.execute.steps.provenance import record_sweep
from sweeps.resolve import dag_of
from sweeps.spec.resources import Devices
from sweeps.spec.spec import parse_sweep
from sweeps.store import leases, processes
from sweeps.store.leases import Lease, attempts
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store
from sweeps.watch.garbage import find_garbage
from sweeps.watch.status import status


@pytest.fixture
def dag(small_spec: dict[str, Any]) -> Dag:
    return dag_of(parse_sweep(small_spec))


@pytest.fixture
def store(small_spec: dict[str, Any], dag: Dag, tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.create()
    record_sweep(store, parse_sweep(small_spec), dag)
    return store


def command(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["sweep", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def finish(store: Store, step: str) -> None:
    store.commit(step, {"id": step, "step": {"kind": "pretrain"}, "loss": 1.0, "model": "model-0001"})


def test_every_step_is_in_the_state_that_the_store_says(dag: Dag, store: Store) -> None:
    _, shared, teacher, *students = dag.steps
    finish(store, shared.id)
    store.write({"reason": "it broke\nat line 7", "attempt": 1}, teacher.id, "failure.json")
    lease = Lease.claim(store, students[0].id, 1, cpus=1, gpus=0.0)
    assert lease
    lease.progress = {"began": 0, "steps_done": 100, "steps": 500, "loss": 3.25, "seconds": 2.0}
    lease.beat(1)
    found = {step.id: step for step in status(store).steps}
    of_shared = "running", *["ready" if step.teacher == shared else "blocked" for step in students[1:]]
    assert [found[step.id].state for step in dag.steps] == ["ready", "done", "failed", *of_shared]
    assert found[students[0].id].seconds_left == pytest.approx(8.0)
    told = command("status", store.root)
    assert "1 done, 1 running, 2 ready, 2 blocked, 1 failed of 7 steps" in told
    assert "100/500" in told
    assert "loss 3.250" in told
    assert "it broke" in told
    assert "at line 7" not in told
    assert json.loads(command("status", store.root, "--json"))["seconds_left"] is None


def test_a_step_whose_process_is_gone_is_not_running(
    dag: Dag, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Lease.claim(store, dag.steps[0].id, 1)
    assert status(store).of("running")
    monkeypatch.setattr(processes, "process_start_ticks", lambda pid: None)
    assert not status(store).of("running")


def test_of_another_machine_s_process_only_the_age_of_its_beat_is_known(
    dag: Dag, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_TIMEOUT", 0.5)
    with monkeypatch.context() as there:
        there.setattr(processes, "_machine", lambda: "another")
        lease = Lease.claim(store, dag.steps[0].id, 1)
    assert lease
    lease.beat(1)
    assert status(store).of("running")
    time.sleep(0.6)
    assert not status(store).of("running")


def test_what_is_spent_is_what_attempts_took(dag: Dag, store: Store) -> None:
    """Two attempts: one lost half way, one from its checkpoint to the end."""
    step = dag.steps[0]
    first = Lease.claim(store, step.id, 1, cpus=2, gpus=0.5, nodes=1, members=1)
    assert first
    first.progress = {"began": 0, "steps_done": step.ends // 2, "steps": step.ends}
    first.started -= 1800
    first.end(Ending.LOST)
    second = Lease.claim(store, step.id, 2, cpus=2, gpus=0.5, nodes=1, members=2)
    assert second
    second.progress = {"began": step.ends // 4, "steps_done": step.ends, "steps": step.ends}
    second.started -= 3600
    second.end(Ending.DONE)
    one, two = attempt_bills(1e12, attempts(store, step.id), Devices(dollars_per_hour=2.0))
    assert (one.flops, two.flops) == pytest.approx((0.5e12, 0.75e12), rel=1e-2)
    assert (one.gpu_hours, two.gpu_hours) == pytest.approx((0.25, 0.25), rel=1e-3)
    assert one.dollars == pytest.approx(0.5, rel=1e-3)
    assert status(store).spent.gpu_hours == pytest.approx(0.5, rel=1e-3)


def test_steps_are_cancelled_and_retried_by_the_start_of_their_ids(dag: Dag, store: Store) -> None:
    victim = dag.steps[0]
    assert "cancelled" in command("cancel", store.root, victim.id[:6])
    (failed,) = status(store).of("failed")
    assert (failed.id, failed.reason) == (victim.id, "it was cancelled")
    assert "to be tried again" in command("retry", store.root)
    assert not status(store).of("failed")
    store.write({"reason": "it broke", "attempt": 3}, victim.id, "failure.json")
    assert "start the sweep again" in command("retry", store.root, victim.id)
    assert not status(store).of("failed")
    assert (store.read(victim.id, "failure.json") or {})["pardoned"]
    with pytest.raises(InputError, match="'zzz' names no steps of small"):
        CliRunner().invoke(app, ["sweep", "cancel", store.root, "zzz"], catch_exceptions=False)


def test_logs_are_those_of_the_attempt_asked_for(dag: Dag, store: Store) -> None:
    step = dag.steps[0].id
    for number in (1, 2):
        place = leases.log_path(step, number)
        lease = Lease.claim(store, step, number, log="/".join(place))
        assert lease
        store.write_bytes(f"attempt {number}\n".encode(), *place)
        lease.end(Ending.FAILED, "it broke")
    assert command("logs", store.root, step[:5]).startswith("attempt 2\n")
    assert command("logs", store.root, step[:5], "--attempt", "1").startswith("attempt 1\n")


def test_garbage_is_what_nothing_unfinished_needs(small_spec: dict[str, Any], tmp_path: Path) -> None:
    small_spec["training"] |= {"schedule": "wsd"}
    dag, store = dag_of(parse_sweep(small_spec)), Store(tmp_path / "store")
    store.create()
    record_sweep(store, parse_sweep(small_spec), dag)
    trunk = next(step for step in dag.steps if step.kind == "trunk")
    branches = [step for step in dag.steps if trunk in step.needs]
    store.write_bytes(b"123", trunk.id, "checkpoints", "1-0001", "state.safetensors")
    finish(store, trunk.id)
    for step in branches[1:]:
        finish(store, step.id)
    store.write_bytes(b"12345", branches[1].id, "model-0001", "model.safetensors")
    store.write_bytes(b"1", branches[1].id, "model-0002", "model.safetensors")
    assert [each.place for each in find_garbage(store, status(store))] == [(branches[1].id, "model-0002")]
    finish(store, branches[0].id)
    sizes = {each.place: each.size for each in find_garbage(store, status(store))}
    assert sizes == {(branches[1].id, "model-0002"): 1, (trunk.id, "checkpoints"): 3}
    assert "--yes removes it" in command("gc", store.root)
    assert "removed" in command("gc", store.root, "--yes")
    assert not find_garbage(store, status(store))
    assert store.result(trunk.id)


def test_a_place_without_a_sweep_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a sweep store"):
        status(Store(tmp_path))
