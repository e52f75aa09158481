"""The scheduler, with executors that only pretend: order, failures, what is left to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.executors import Outcome
from sweeps.scheduler import CRASHES_FORGIVEN, State, run
from sweeps.spec import parse_sweep
from sweeps.steps import Dag, Step, expand
from sweeps.store import Store


class Pretend:
    """Ends steps in the order of submission; ``verdict`` says how."""

    def __init__(self, store: Store, verdict: Any = lambda step: None, slots: int = 2) -> None:
        self.store, self.verdict, self.slots = store, verdict, slots
        self.queue: list[Step] = []
        self.attempts: list[str] = []

    def submit(self, step: Step) -> None:
        if step.teacher:
            assert self.store.result(step.teacher.id), "a student started before its teacher was done"
        self.queue.append(step)
        self.attempts.append(step.id)
        assert len(self.queue) <= self.slots

    def wait(self, seconds: float) -> list[Outcome]:
        step = self.queue.pop(0)
        outcome = self.verdict(step) or Outcome(step)
        if outcome.error is None:
            self.store.commit(step.id, {"id": step.id, "step": {"kind": step.kind}, "loss": 1.0})
        return [outcome]

    def close(self) -> None:
        pass


@pytest.fixture
def dag(small_spec: dict[str, Any]) -> Dag:
    return expand(parse_sweep(small_spec))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def seconds(step: Step) -> float:
    return step.flops / 1e9


def test_every_step_runs_once_teachers_first(dag: Dag, store: Store) -> None:
    executor = Pretend(store)
    state = run(dag, store, executor, seconds, lambda _: None)
    assert state.complete
    assert sorted(executor.attempts) == sorted(step.id for step in dag.steps)
    first = {step.id: step for step in dag.steps}[executor.attempts[0]]
    assert dag.waiting_for[first.id]  # what others wait for goes first


def test_what_is_there_is_not_run_again(dag: Dag, store: Store) -> None:
    run(dag, store, Pretend(store), seconds, lambda _: None)
    again = Pretend(store)
    state = run(dag, store, again, seconds, lambda _: None)
    assert again.attempts == []
    assert state.complete
    assert len(state.found) == len(dag.steps)


def test_a_failed_teacher_blocks_its_students_and_nothing_else(dag: Dag, store: Store) -> None:
    teacher = next(step for step in dag.steps if step.kind == "distil").teacher
    assert teacher
    executor = Pretend(store, lambda s: Outcome(s, "it broke") if s.id == teacher.id else None)
    state = run(dag, store, executor, seconds, lambda _: None)
    assert state.failed == {teacher.id: "it broke"}
    assert {s.teacher.id for s in state.blocked if s.teacher} == {teacher.id}
    assert len(state.blocked) == dag.waiting_for[teacher.id] == 2
    assert len(state.done) == len(dag.steps) - 3
    assert executor.attempts.count(teacher.id) == 1  # errors are not retried

    mended = Pretend(store)
    assert run(dag, store, mended, seconds, lambda _: None).complete
    assert len(mended.attempts) == 3


def test_crashes_are_forgiven_a_few_times(dag: Dag, store: Store) -> None:
    victim = dag.steps[0].id
    crashes = iter([True] * CRASHES_FORGIVEN)
    executor = Pretend(
        store, lambda s: Outcome(s, "died", crashed=True) if s.id == victim and next(crashes, False) else None
    )
    assert run(dag, store, executor, seconds, lambda _: None).complete
    assert executor.attempts.count(victim) == CRASHES_FORGIVEN + 1


def test_endless_crashes_end(dag: Dag, store: Store) -> None:
    executor = Pretend(store, lambda s: Outcome(s, "died", crashed=True))
    state = run(dag, store, executor, seconds, lambda _: None)
    assert not state.done
    assert set(state.failed.values()) == {"died"}


def test_an_interrupt_keeps_what_is_done(dag: Dag, store: Store) -> None:
    def interrupt(state: State) -> None:
        if len(state.done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(dag, store, Pretend(store), seconds, interrupt)
    rest = Pretend(store)
    state = run(dag, store, rest, seconds, lambda _: None)
    assert state.complete
    assert len(rest.attempts) == len(dag.steps) - 3


def test_the_time_left_falls_to_nothing(dag: Dag, store: Store) -> None:
    left: list[float] = []
    run(dag, store, Pretend(store), seconds, lambda state: left.append(state.seconds_left(2)))
    assert left[0] == pytest.approx(sum(map(seconds, dag.steps)) / 2, rel=1e-3)
    assert left[-1] == 0
