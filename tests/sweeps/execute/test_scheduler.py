"""The scheduler, with executors that only pretend: order, failures, budgets, other drivers, what is left to do."""

from __future__ import annotations

import errno
import itertools
import random
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaling.errors import InputError
from sweeps.dag.expand import Dag, Step
from sweeps.execute import scheduler
from sweeps.execute.budget.budget import ALREADY_RESERVED, BudgetLedger
from sweeps.execute.drivers.drivers import Session
from sweeps.execute.executors import cohort_placer
from sweeps.execute.executors.job_placement import JobPlacement, NodeCapacity
from sweeps.execute.jobs import AttemptOutcome, Job, record_lifetime
from sweeps.execute.scheduler import run
from sweeps.execute.state import Running, State
from sweeps.execute.steps.provenance import record_sweep
from sweeps.operations.notify import Webhook
from sweeps.resolve import dag_of
from sweeps.spec.resources import Caps, Devices, Resources
from sweeps.spec.spec import parse_sweep
from sweeps.store import leases, outcomes, processes
from sweeps.store.leases import Lease, attempts, latest_number
from sweeps.store.outcomes import RETRIES, Ending
from sweeps.store.store import Store
from sweeps.store.time_limit import DRIVERS, TimeLimit
from sweeps.watch.status import status

Verdict = Callable[[Step], tuple[Ending, str] | None]


class Pretend:
    """Ends jobs in the order of submission; ``verdict`` says how, if not well."""

    usual = Resources()

    def __init__(self, store: Store, verdict: Verdict = lambda step: None, slots: int = 2) -> None:
        self.store, self.verdict, self.slots = store, verdict, slots
        self.queue: list[Job] = []
        self.attempts: list[str] = []
        self.dropped: list[Job] = []

    def misfit(self, resources: Resources) -> str | None:
        return "it has no such node" if resources.gpus > 1 else None

    def room(self, resources: Resources) -> bool:
        return len(self.queue) < self.slots

    def submit(self, job: Job) -> None:
        for step in job.steps:
            assert all(self.store.result(need.id) for need in step.needs), (
                "started before its teacher was done"
            )
        self.queue.append(job)
        self.attempts += [step.id for step in job.steps]

    def wait(self, seconds: float) -> list[AttemptOutcome]:
        if not self.queue:
            return []
        job = self.queue.pop(0)
        return [self._run(job, step, number) for step, number in zip(job.steps, job.numbers, strict=True)]

    def _run(self, job: Job, step: Step, number: int) -> AttemptOutcome:
        lease = Lease.claim(self.store, step.id, number, cpus=1, job=job.name)
        assert lease
        lease.progress = {"began": 0, "steps_done": step.ends, "steps": step.ends}
        ending, reason = self.verdict(step) or (Ending.DONE, "")
        if ending is Ending.DONE:
            self.store.commit(step.id, {"id": step.id, "step": {"kind": step.kind}, "loss": 1.0})
        if ending is not Ending.LOST:
            lease.end(ending, reason)
        return AttemptOutcome(step.id, number, ending, reason)

    def drop(self, job: Job) -> None:
        self.dropped.append(job)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "BACKOFF_LIMIT", 0.001)
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(scheduler, "LOOK_LOCAL", 0.0)


@pytest.fixture
def dag(small_spec: dict[str, Any]) -> Dag:
    return dag_of(parse_sweep(small_spec))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.create()
    return store


def seconds(step: Step) -> float:
    return step.flops / 1e9


def ignore(state: State) -> None:
    pass


def test_every_step_runs_once_teachers_first(dag: Dag, store: Store) -> None:
    executor = Pretend(store)
    state = run(dag, store, executor, seconds, ignore)
    assert state.complete
    assert sorted(executor.attempts) == sorted(step.id for step in dag.steps)
    first = {step.id: step for step in dag.steps}[executor.attempts[0]]
    assert dag.waiting_for[first.id]  # what others wait for goes first


def test_what_is_there_is_not_run_again(dag: Dag, store: Store) -> None:
    run(dag, store, Pretend(store), seconds, ignore)
    again = Pretend(store)
    state = run(dag, store, again, seconds, ignore)
    assert again.attempts == []
    assert state.complete
    assert len(state.found) == len(dag.steps)


def test_a_failed_teacher_blocks_its_students_and_nothing_else(dag: Dag, store: Store) -> None:
    teacher = next(step for step in dag.steps if step.kind == "distil").teacher
    assert teacher
    executor = Pretend(store, lambda s: (Ending.FAILED, "it broke") if s.id == teacher.id else None)
    state = run(dag, store, executor, seconds, ignore)
    assert state.failed == {teacher.id: "it broke"}
    assert {s.teacher.id for s in state.blocked if s.teacher} == {teacher.id}
    assert len(state.blocked) == dag.waiting_for[teacher.id] == 2
    assert len(state.done) == len(dag.steps) - 3
    assert executor.attempts.count(teacher.id) == 1  # errors are not retried

    mended = Pretend(store)
    assert run(dag, store, mended, seconds, ignore).complete
    assert len(mended.attempts) == 3


@pytest.mark.parametrize(
    ("ending", "retries"), [(Ending.FAILED, 0), (Ending.MEMORY, 1), (Ending.CRASHED, 2), (Ending.LOST, 30)]
)
def test_every_kind_of_ending_earns_its_retries(dag: Dag, store: Store, ending: Ending, retries: int) -> None:
    victim = dag.steps[0].id
    bad = iter([True] * retries)
    executor = Pretend(store, lambda s: (ending, "bad luck") if s.id == victim and next(bad, False) else None)
    assert run(dag, store, executor, seconds, ignore).complete
    assert executor.attempts.count(victim) == retries + 1
    assert RETRIES.get(ending, 0) == retries


def test_endless_bad_luck_ends_and_kinds_do_not_mix(dag: Dag, store: Store) -> None:
    turns = iter([Ending.MEMORY, *[Ending.CRASHED] * 9])
    victim = dag.steps[0].id
    executor = Pretend(store, lambda s: (next(turns), "bad luck") if s.id == victim else None)
    state = run(dag, store, executor, seconds, ignore)
    assert executor.attempts.count(victim) == 1 + 3
    assert state.failed == {victim: "bad luck (3 times)"}
    failure = store.read(victim, "failure.json")
    assert failure
    assert (failure["ending"], failure["attempt"]) == ("crashed", 4)


def test_spent_retries_survive_a_restart_and_a_new_start_forgives_what_was_given_up(
    dag: Dag, store: Store
) -> None:
    victim = dag.steps[0].id

    def crash(step: Step) -> tuple[Ending, str] | None:
        return (Ending.CRASHED, "died") if step.id == victim else None

    def stop_after_one(state: State) -> None:
        if len(leases.attempts(store, victim)) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(dag, store, Pretend(store, crash), seconds, stop_after_one)
    rest = Pretend(store, crash)
    assert victim in run(dag, store, rest, seconds, ignore).failed
    assert rest.attempts.count(victim) == RETRIES[Ending.CRASHED]  # one was spent before
    assert run(dag, store, Pretend(store), seconds, ignore).complete


def test_a_failed_step_is_taken_up_again_when_somebody_asks(dag: Dag, store: Store) -> None:
    victim, broken = next(step.teacher.id for step in dag.steps if step.teacher), [True]

    def mend(state: State) -> None:
        if victim in state.failed and broken:
            broken.clear()
            failure = store.read(victim, "failure.json")
            assert failure
            store.write(failure | {"pardoned": True}, victim, "failure.json")

    executor = Pretend(
        store, lambda s: (Ending.FAILED, "it broke") if s.id == victim and broken else None, slots=1
    )
    assert run(dag, store, executor, seconds, mend).complete


def test_an_interrupt_keeps_what_is_done(dag: Dag, store: Store) -> None:
    def interrupt(state: State) -> None:
        if len(state.done) >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(dag, store, Pretend(store, slots=1), seconds, interrupt)
    rest = Pretend(store)
    state = run(dag, store, rest, seconds, ignore)
    assert state.complete
    assert len(rest.attempts) == len(dag.steps) - len(state.found)


def test_the_time_left_falls_to_nothing(dag: Dag, store: Store) -> None:
    left: list[float] = []
    run(dag, store, Pretend(store), seconds, lambda state: left.append(state.seconds_left(2)))
    assert left[0] == pytest.approx(sum(map(seconds, dag.steps)) / 2, rel=1e-3)
    assert left[-1] == 0


def test_a_worker_that_is_busy_a_moment_longer_does_not_end_the_sweep(dag: Dag, store: Store) -> None:
    """The executor's job is done and settled, but it cannot take the next one yet."""

    class Slow(Pretend):
        asked = 0

        def room(self, resources: Resources) -> bool:
            self.asked += 1
            return self.asked % 5 > 2 and super().room(resources)

    assert run(dag, store, Slow(store, slots=1), seconds, ignore).complete


def test_what_another_driver_works_on_is_waited_for(dag: Dag, store: Store) -> None:
    theirs = dag.steps[0]
    lease = Lease.claim(store, theirs.id, 1)
    assert lease
    looks: list[int] = []

    def finish_there(state: State) -> None:
        lease.beat(len(looks))
        looks.append(len(state.done))
        if len(looks) > 20 and not lease.ended:
            assert state.elsewhere == {theirs.id}
            store.commit(theirs.id, {"id": theirs.id, "step": {"kind": "pretrain"}, "loss": 2.0})
            lease.end(Ending.DONE)

    executor = Pretend(store)
    assert run(dag, store, executor, seconds, finish_there).complete
    assert theirs.id not in executor.attempts


def test_what_a_silent_process_held_is_taken_over(
    dag: Dag, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process on another machine, as far as can be seen from here, that never beats again."""
    monkeypatch.setattr(leases, "LEASE_TIMEOUT", 0.2)
    theirs = dag.steps[0]
    with monkeypatch.context() as there:
        there.setattr(processes, "_machine", lambda: "another")
        assert Lease.claim(store, theirs.id, 1)
    executor = Pretend(store)
    assert run(dag, store, executor, seconds, ignore).complete
    assert [attempt.number for attempt in leases.attempts(store, theirs.id)] == [1, 2]


def test_a_job_that_falls_silent_is_dropped_and_done_again(
    dag: Dag, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executor never reports the attempt, like a node cut off from the network."""
    monkeypatch.setattr(leases, "LEASE_TIMEOUT", 0.2)
    monkeypatch.setattr(leases, "has_exited", lambda holder: False)

    class CutOff(Pretend):
        def wait(self, seconds: float) -> list[AttemptOutcome]:
            if len(self.attempts) == 1:
                (job,) = self.queue
                if not store.names(job.steps[0].id, "attempts"):
                    assert Lease.claim(store, job.steps[0].id, job.numbers[0])
                return []
            self.queue = [job for job in self.queue if job not in self.dropped]
            return super().wait(seconds)

        def drop(self, job: Job) -> None:
            super().drop(job)
            self.queue.remove(job)

    executor = CutOff(store, slots=1)
    state = run(dag, store, executor, seconds, ignore)
    assert state.complete
    assert state.retried == len(executor.dropped) == 1


def test_a_store_that_is_away_for_a_moment_is_waited_for(
    dag: Dag, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every seventh look at it fails, whatever was being done."""
    names, looks = store.names, itertools.count()

    def flaky(*place: str) -> list[str]:
        if next(looks) % 7 == 6:
            raise TimeoutError("the network is slow")
        return names(*place)

    monkeypatch.setattr(store, "names", flaky)
    executor = Pretend(store)
    assert run(dag, store, executor, seconds, ignore).complete
    assert len(executor.attempts) == len(dag.steps)


def test_the_end_of_an_attempt_is_not_told_by_who_lost_the_race_for_it(dag: Dag, store: Store) -> None:
    """Two drivers submit the same attempt; the process of the other one is first, and works on undisturbed."""
    theirs = dag.steps[0].id
    winner: list[Lease] = []

    class Beaten(Pretend):
        def _run(self, job: Job, step: Step, number: int) -> AttemptOutcome:
            if step.id == theirs and not winner:
                lease = Lease.claim(self.store, step.id, number, job="another")
                assert lease
                winner.append(lease)
                return AttemptOutcome(step.id, number, Ending.HELD, "another process works on it")
            return super()._run(job, step, number)

    def finish_there(state: State) -> None:
        if winner and not winner[0].ended:
            winner[0].beat(len(state.done))
            assert store.names(theirs, "attempts") == ["0001.beat.json", "0001.json"]
            if len(state.done) == len(dag.steps) - 1 - dag.waiting_for[theirs]:
                store.commit(theirs, {"id": theirs, "step": {"kind": "pretrain"}, "loss": 2.0})
                winner[0].end(Ending.DONE)

    executor = Beaten(store)
    assert run(dag, store, executor, seconds, finish_there).complete
    assert [each.number for each in leases.attempts(store, theirs)] == [1]
    assert executor.attempts.count(theirs) == 1


def test_only_our_own_attempts_are_told_to_be_lost(dag: Dag, store: Store) -> None:
    """A worker of ours dies before it claims; meanwhile a process of another driver has claimed that number."""
    theirs = dag.steps[0].id

    class Late(Pretend):
        def _run(self, job: Job, step: Step, number: int) -> AttemptOutcome:
            if step.id == theirs and number == 1:
                assert Lease.claim(self.store, step.id, 1, job="another")
                return AttemptOutcome(step.id, 1, Ending.LOST, "its process was stopped by SIGKILL")
            return super()._run(job, step, number)

    def look(state: State) -> None:
        if state.elsewhere:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(dag, store, Late(store), seconds, look)
    assert store.names(theirs, "attempts") == ["0001.json"]


class Unheard(Pretend):
    """Jobs end before they say anything in the store."""

    def _run(self, job: Job, step: Step, number: int) -> AttemptOutcome:
        ending, reason = self.verdict(step) or (Ending.DONE, "")
        if ending is Ending.DONE:
            return super()._run(job, step, number)
        return AttemptOutcome(step.id, number, ending, reason)


@pytest.mark.parametrize(
    "ending", [Ending.FAILED, Ending.MEMORY, Ending.CRASHED, Ending.LOST, Ending.UNSTARTED]
)
@pytest.mark.parametrize("writable", [True, False])
def test_attempts_that_leave_no_record_count_too(
    dag: Dag, store: Store, ending: Ending, writable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the driver cannot record them either."""
    victim = dag.steps[-1]
    only = Dag(steps=(victim,), asked=1)
    for need in victim.needs:
        store.commit(need.id, {"id": need.id, "step": {"kind": "pretrain"}, "loss": 2.0})
    if not writable:

        def full(*_: object, **__: object) -> bool:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(store, "put_new", full)
    monkeypatch.setattr(scheduler, "MAX_UNSTARTED_WORKERS", 99)
    executor = Unheard(store, lambda _: (ending, "bad luck"))
    state = run(only, store, executor, seconds, ignore)
    assert len(executor.attempts) == 1 + RETRIES.get(ending, 0)
    assert state.failed[victim.id].startswith("bad luck")
    assert len(state.troubles) == RETRIES.get(ending, 0)
    if writable:
        assert [each.ending for each in leases.attempts(store, victim.id)] == [ending] * len(
            executor.attempts
        )


def test_no_worker_that_can_be_started_stops_the_sweep_with_what_it_said(dag: Dag, store: Store) -> None:
    executor = Unheard(store, lambda _: (Ending.UNSTARTED, "exit 1: no module named torch"), slots=1)
    state = run(dag, store, executor, seconds, ignore)
    assert len(executor.attempts) == scheduler.MAX_UNSTARTED_WORKERS
    assert state.halted == "no worker can be started: exit 1: no module named torch"


def test_an_attempt_always_waits_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "BACKOFF_LIMIT", 60.0)
    waits = [outcomes.backoff_seconds(retries) for retries in range(40)]
    assert waits[0] == waits[1] == 1.0
    assert waits == sorted(waits)
    assert waits[-1] == 60.0


@pytest.mark.parametrize("ending", [Ending.FULL, Ending.DENIED])
def test_a_store_that_takes_nothing_ends_what_runs_at_once_unrecorded_too(
    dag: Dag, store: Store, ending: Ending
) -> None:
    executor = Unheard(store, lambda s: (ending, "it broke") if s.id != dag.steps[0].id else None, slots=2)
    state = run(dag, store, executor, seconds, ignore)
    assert len(executor.attempts) <= 3
    assert state.halted == outcomes.STORE_ENDINGS[ending].format("it broke")
    assert not state.failed


def test_a_cancelled_step_is_taken_up_when_somebody_asks(dag: Dag, store: Store) -> None:
    """By the driver at work, whether or not it was running when it was cancelled."""
    victim = dag.steps[0].id
    store.write({}, victim, "attempts", leases.CANCEL)

    def retry(state: State) -> None:
        if victim in state.failed:
            store.remove(victim, "attempts", leases.CANCEL)

    executor = Pretend(store, slots=1)
    assert run(dag, store, executor, seconds, retry).complete


def test_a_step_that_was_wanted_again_before_it_had_stopped_halts_nothing(dag: Dag, store: Store) -> None:
    """Cancelled while it ran, and retried before its driver heard that it has stopped."""
    turns = iter([(Ending.CANCELLED, "it was cancelled")])
    victim = dag.steps[0].id
    executor = Pretend(store, lambda s: next(turns, None) if s.id == victim else None)
    state = run(dag, store, executor, seconds, ignore)
    assert state.complete
    assert executor.attempts.count(victim) == 2


def test_what_failed_here_and_was_done_elsewhere_is_done(dag: Dag, store: Store) -> None:
    victim = dag.steps[0].id

    def mend(state: State) -> None:
        if victim in state.failed:
            store.remove(victim, "failure.json")
            store.commit(victim, {"id": victim, "step": {"kind": "pretrain"}, "loss": 2.0})

    executor = Pretend(store, lambda s: (Ending.FAILED, "it broke") if s.id == victim else None, slots=1)
    assert run(dag, store, executor, seconds, mend).complete
    assert executor.attempts.count(victim) == 1


def test_a_full_store_stops_the_sweep(dag: Dag, store: Store) -> None:
    executor = Pretend(store, lambda s: (Ending.FULL, "No space left on device"), slots=1)
    state = run(dag, store, executor, seconds, ignore)
    assert len(executor.attempts) == 1
    assert state.halted == "the store is full: No space left on device; make room and start again"


def test_cancelling_stops_and_starting_goes_on(dag: Dag, store: Store) -> None:
    def cancel(state: State) -> None:
        if len(state.done) >= 2:
            store.write({}, leases.CANCEL)

    state = run(dag, store, Pretend(store, slots=1), seconds, cancel)
    assert state.halted == "it was cancelled"
    assert 2 <= len(state.done) < len(dag.steps)
    assert run(dag, store, Pretend(store), seconds, ignore).complete


def test_a_cancelled_step_blocks_its_students_until_it_is_wanted_again(dag: Dag, store: Store) -> None:
    store.write({}, dag.steps[0].id, "attempts", leases.CANCEL)
    state = run(dag, store, Pretend(store), seconds, ignore)
    assert state.failed == {dag.steps[0].id: "it was cancelled"}
    store.remove(dag.steps[0].id, "attempts", leases.CANCEL)
    assert run(dag, store, Pretend(store), seconds, ignore).complete


def test_a_cap_is_kept_over_restarts(small_spec: dict[str, Any], dag: Dag, store: Store) -> None:
    half = dag.flops / 2
    capped = parse_sweep(small_spec | {"caps": {"flops": half}})
    first = run(dag, store, Pretend(store), seconds, ignore, capped)
    assert first.halted
    assert first.halted.startswith("caps.flops: ")
    spent = sum(step.flops_to_spend for step in dag.steps if step.id in first.done)
    cheapest = min(step.flops_to_spend for step in dag.steps if step.id not in first.done)
    assert spent <= half < spent + cheapest
    again = Pretend(store)
    assert run(dag, store, again, seconds, ignore, capped).halted
    assert again.attempts == []
    assert run(dag, store, Pretend(store), seconds, ignore, parse_sweep(small_spec)).complete


class Racing(Pretend):
    """Ledger of one of several drivers on a store."""

    def _run(self, job: Job, step: Step, number: int) -> AttemptOutcome:
        time.sleep(0.02)
        if self.store.result(step.id) or latest_number(self.store.names(step.id, "attempts")) >= number:
            return AttemptOutcome(step.id, number, Ending.HELD, "another process works on it")
        return super()._run(job, step, number)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cap_is_kept_by_drivers_side_by_side(
    small_spec: dict[str, Any], dag: Dag, store: Store, share: float
) -> None:
    capped = parse_sweep(small_spec | {"caps": {"flops": share * dag.flops}})
    barrier, ends = threading.Barrier(4), []

    def drive() -> None:
        barrier.wait()
        ends.append(run(dag, store, Racing(store), seconds, ignore, capped))

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 4
    assert all(state.halted and "caps.flops: " in state.halted for state in ends)
    done = [step for step in dag.steps if store.result(step.id)]
    spent = sum(step.flops_to_spend for step in done)
    assert spent <= share * dag.flops
    missing = [step for step in dag.steps if step not in done and all(need in done for need in step.needs)]
    assert all(spent + step.flops_to_spend > share * dag.flops for step in missing)
    assert all(len(leases.attempts(store, step.id)) <= 1 for step in dag.steps)


def test_of_drivers_that_want_the_last_of_a_budget_one_has_it(
    small_spec: dict[str, Any], dag: Dag, store: Store
) -> None:
    """Eight at once, each with a step of its own: what is read before another has written counts for nothing."""
    steps = [step for step in dag.steps if not step.needs]
    most = 2.5 * max(step.flops_to_spend for step in steps)
    barrier, granted = threading.Barrier(8), []

    def want(number: int) -> None:
        with Session(store, 1) as session:
            step = replace(steps[number % len(steps)], seed=number)
            known = {step.id: step}
            ledger = BudgetLedger(store, Caps(flops=most), Devices(), seconds, known, session)
            ledger.look()
            job = Job(steps=(step,), numbers=(1,), resources=Resources())
            barrier.wait()
            if ledger.reserve(job) is None:
                granted.append(step.flops_to_spend)
            barrier.wait()

    threads = [threading.Thread(target=want, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < sum(granted) <= most < sum(granted) + max(step.flops_to_spend for step in steps)


def test_what_a_driver_spent_counts_when_it_has_gone_between_two_looks(dag: Dag, store: Store) -> None:
    """The reservation of a driver ends with it, and later attempts are read before that."""
    step, other = (each for each in dag.steps[:2])
    known = {each.id: each for each in dag.steps}
    most = Caps(flops=1.5 * max(step.flops_to_spend, other.flops_to_spend))
    with Session(store, 1) as second:
        late = BudgetLedger(store, most, Devices(), seconds, known, second)
        late.look()
        with Session(store, 1) as first:
            job = Job(steps=(step,), numbers=(1,), resources=Resources())
            assert BudgetLedger(store, most, Devices(), seconds, known, first).reserve(job) is None
            lease = Lease.claim(store, step.id, 1, cpus=1, job=job.name)
            assert lease is not None
            lease.progress = {"began": 0, "steps_done": step.steps, "steps": step.steps}
            lease.end(Ending.DONE)
        refused = late.reserve(Job(steps=(other,), numbers=(1,), resources=Resources()))
        assert refused is not None
        assert refused.startswith(f"caps.flops: {step.flops_to_spend:.3g} of ")


def test_what_a_driver_reserved_is_free_again_once_it_is_gone(dag: Dag, store: Store) -> None:
    step = dag.steps[0]
    job = Job(steps=(step,), numbers=(1,), resources=Resources())

    def ledger(session: Session) -> BudgetLedger:
        known = {each.id: each for each in dag.steps}
        return BudgetLedger(store, Caps(flops=1.5 * step.flops_to_spend), Devices(), seconds, known, session)

    with Session(store, 1) as first:
        assert ledger(first).reserve(job) is None
        with Session(store, 1) as second:
            assert ledger(second).taken(step.id, 1) is False  # it has not looked yet
            assert ledger(second).reserve(job) == ALREADY_RESERVED
            other = Job(steps=(dag.steps[1],), numbers=(1,), resources=Resources())
            assert "caps.flops: 0 of " in (ledger(second).reserve(other) or "")
    with Session(store, 1) as third:
        assert ledger(third).reserve(job) is None


def test_what_is_ahead_is_as_long_as_looks_take(dag: Dag, store: Store) -> None:
    """By the median of the last three: one look that slept makes no rule, a store that is slow does."""
    with Session(store, 1) as session:
        driver = scheduler.Scheduler(dag, store, Pretend(store), seconds, session)
        driver.look_seconds = 2.0
        expected = {(0.1,): 2.0, (0.1, 60.0, 0.1): 2.0, (0.1, 7.0, 7.5): 7.0, (5.0, 7.0, 0.1, 0.1): 2.0}
        for looks, ahead in expected.items():
            driver.unseen.clear()
            driver.unseen.extend(looks)
            assert driver._ahead == ahead


def test_a_cap_that_would_be_broken_before_the_next_look_is_broken(dag: Dag, store: Store) -> None:
    """10 s are spent of 20; what runs is stopped once the next look and the stopping reach beyond that."""
    step = dag.steps[0]
    with Session(store, 1) as session:
        known, devices = {each.id: each for each in dag.steps}, Devices(dollars_per_hour=3600.0)
        ledger = BudgetLedger(store, Caps(dollars=20.0), devices, seconds, known, session)
        lease = Lease.claim(store, step.id, 1, cpus=1, members=1, begun=time.monotonic() - 10.0)
        assert lease
        ledger.look()
        assert ledger.broken(5.0) is None
        assert "caps.dollars: 10." in (ledger.broken(9.0) or "")
        lease.progress = {"began": 0, "steps_done": 2, "steps": 50, "seconds": 8.0}  # 4 s a step
        lease.beat(1, due=0.1)
        ledger.look()
        assert "caps.dollars: 10." in (ledger.broken(5.0) or "")  # it stops after 8 s, not 2
        lease.end(Ending.LOST)
        ledger.look()
        assert ledger.broken(9.0) is None


@pytest.mark.parametrize("cap", ["dollars", "gpu_hours", "hours", "flops"])
def test_jobs_under_caps_of_time_have_a_time_limit(cap: str, dag: Dag, store: Store) -> None:
    """It is their estimate, and the time in which it can be extended."""
    with Session(store, 1) as session:
        ledger = BudgetLedger(store, Caps(**{cap: 1e30}), PRICED, lambda _: 1.5, {}, session)
        job = Job(steps=dag.steps[:2], numbers=(1, 1), resources=Resources())
        assert ledger.reserve(job, ahead=2.0) is None
        expected = {} if cap == "flops" else {job.name: pytest.approx(3.0 + 2 * 2.0 + 2 * 0.5 + 2.0)}
        assert ledger.time_limits == expected


PRICED = Devices(dollars_per_hour=3600.0)
"""A dollar a second."""


class Worker:
    """Pretends to be the process of a job, ``seconds`` old."""

    def __init__(
        self, store: Store, ledger: BudgetLedger, step: Step, seconds: float = 0.0, members: int = 1
    ) -> None:
        self.store, self.ledger, self.step = store, ledger, step
        steps = step, *(replace(step, seed=1000 + k) for k in range(1, members))
        numbers = (1,) * members
        self.job = Job(steps=steps, numbers=numbers, resources=Resources(), driver=ledger.session.name)
        self.refused = ledger.reserve(self.job)
        self.running = Running(step, 1, self.job)
        if not self.refused:
            self.limit = TimeLimit(store, self.job.driver, self.job.name, self.reserved, time.monotonic())
            claimed = [
                Lease.claim(store, each.id, 1, limit=self.limit, **self.job.about) for each in self.job.steps
            ]
            self.lease, *mates = claimed
            self.mates = [lease for lease in mates if lease]
            """Leases of the other members of its cohort."""
            self.age(seconds)

    @property
    def reserved(self) -> float:
        return self.ledger.time_limits[self.job.name]

    def age(self, seconds: float) -> None:
        """Have it run for ``seconds``, and beat with the limit that its driver grants."""
        assert self.lease
        for lease in (self.lease, *self.mates):
            lease.started = self.limit.begun = time.monotonic() - seconds
        self.limit.read_extension(due=0.1)
        self.lease.beat(1, due=0.1)

    def end(self, seconds: float) -> None:
        assert self.lease
        self.lease.end(Ending.LOST)
        record_lifetime(self.store, self.job, seconds)


@pytest.fixture
def two_ledgers(dag: Dag, store: Store) -> Iterator[Callable[[float], list[BudgetLedger]]]:
    """Returns the ledgers of two drivers under one cap in dollars; steps are taken for very short."""
    with ExitStack() as stack:

        def ledgers(cap: float) -> list[BudgetLedger]:
            sessions = [stack.enter_context(Session(store, 1)) for _ in range(2)]
            known = {step.id: step for step in dag.steps}
            return [
                BudgetLedger(store, Caps(dollars=cap), PRICED, lambda _: 1e-6, known, session)
                for session in sessions
            ]

        yield ledgers


def test_limits_are_extended_as_far_as_the_cap_leaves(
    two_ledgers: Callable[[float], list[BudgetLedger]], dag: Dag, store: Store
) -> None:
    first, second = two_ledgers(20.0)
    one, other = Worker(store, first, dag.steps[0], 2.5), Worker(store, second, dag.steps[1])
    assert one.reserved == other.reserved == pytest.approx(3.0, abs=1e-3)
    for ledger in (first, second):
        ledger.look()
    first.extend([one.running], ahead=2.0)  # the next look but one is at 4 s, and it stops in 2
    assert one.reserved == pytest.approx(2.5 + 0.1 + 4.0 + 0.2 + 2.0 + 2.0, abs=0.2)
    granted = (store.read(DRIVERS, first.session.name) or {})["time_limits"]
    assert granted == {one.job.name: one.reserved}
    one.age(10.0)
    assert attempts(store, one.step.id)[0].told["time_limit"] == one.reserved
    first.look()
    first.extend([one.running], ahead=2.0)
    assert one.reserved == pytest.approx(20.0 - other.reserved)  # the other one's are not touched
    other.age(2.9)
    second.look()
    second.extend([other.running], ahead=2.0)
    assert other.reserved == pytest.approx(3.0, abs=1e-3)  # nothing is left, as nothing has been read since
    assert Worker(store, second, dag.steps[2]).refused
    one.end(11.0)
    second.look()
    second.extend([other.running], ahead=2.0)
    assert other.reserved == pytest.approx(9.0)
    assert second._committed().dollars == pytest.approx(20.0)


def test_a_process_that_was_killed_at_its_limit_is_told_so(
    two_ledgers: Callable[[float], list[BudgetLedger]], dag: Dag, store: Store
) -> None:
    ledger = two_ledgers(20.0)[0]
    job = Worker(store, ledger, dag.steps[0]).job
    killed = AttemptOutcome(dag.steps[0].id, 1, Ending.LOST, "its process was stopped by SIGKILL", lived=2.95)
    assert ledger.explained(killed, job).reason == (
        "it was killed when the 3 s reserved under the cap were used up"
    )
    for other in (
        replace(killed, lived=2.0),
        replace(killed, lived=None),
        replace(killed, ending=Ending.DONE),
    ):
        assert ledger.explained(other, job) is other


def test_a_refusal_is_final_once_nothing_running_could_leave_more(
    two_ledgers: Callable[[float], list[BudgetLedger]], dag: Dag, store: Store
) -> None:
    first, second = two_ledgers(5.5)
    one = Worker(store, first, dag.steps[0])
    assert "caps.dollars: " in (Worker(store, second, dag.steps[1]).refused or "")
    assert second.may_free
    one.end(1.0)
    second.look()
    last = Worker(store, second, dag.steps[1])
    assert not last.refused
    last.end(3.0)
    first.look()
    assert "caps.dollars: 4 of 5.5 spent, 7 would be" in (Worker(store, first, dag.steps[2]).refused or "")
    assert not first.may_free


def test_a_driver_waits_for_what_another_one_may_leave(
    small_spec: dict[str, Any], dag: Dag, store: Store
) -> None:
    """The first holds all of the cap and needs little of it; the second goes on when it has ended."""
    capped = parse_sweep(small_spec | {"caps": {"dollars": 100.0}, "hardware": {"dollars_per_hour": 3600.0}})
    with Session(store, 1) as session:
        known = {step.id: step for step in dag.steps}
        ledger = BudgetLedger(store, Caps(dollars=100.0), PRICED, lambda _: 98.0, known, session)
        one = Worker(store, ledger, replace(dag.steps[0], seed=77))
        driver = threading.Thread(
            target=lambda: ended.append(run(dag, store, Pretend(store), seconds, ignore, capped))
        )
        ended: list[State] = []
        driver.start()
        driver.join(1.0)
        assert driver.is_alive()
        one.end(1.0)
        driver.join(60.0)
        assert ended[0].complete


def test_attempts_that_are_dead_by_their_limits_hold_no_money(
    two_ledgers: Callable[[float], list[BudgetLedger]],
    dag: Dag,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On nodes that were lost: nobody can prove their ends, but their leases have expired, so the kernel has
    killed them, also the one that had recorded its end and whose parent did not measure how long it lived."""
    monkeypatch.setattr(leases, "LEASE_TIMEOUT", 0.5)
    first, second = two_ledgers(300.0)
    first.seconds = lambda _: 60.0
    with monkeypatch.context() as there:
        there.setattr(processes, "_machine", lambda: "another")
        lost, ended = (Worker(store, first, step, 7.0) for step in dag.steps[:2])
        pair = Worker(store, first, dag.steps[2], 7.0, members=2)
    for worker in (ended, pair):
        assert worker.lease
        worker.lease.end(Ending.DONE)
    reserved = lost.reserved + ended.reserved + pair.reserved
    second.look()
    second.reservations.read()
    assert second._committed().dollars == pytest.approx(reserved)
    time.sleep(0.6)
    assert second._committed().dollars == pytest.approx(reserved)  # they may have written since
    pair.mates[0].beat(1, due=0.1)
    second.look()
    assert second._committed().dollars == pytest.approx(7.5 + 7.5 + pair.reserved, abs=0.5)
    time.sleep(0.6)
    second.look()
    assert second._committed().dollars == pytest.approx(7.5 + 7.5 + 7.5, abs=0.7)


def test_what_is_reserved_and_spent_together_never_exceeds_a_cap(
    small_spec: dict[str, Any], dag: Dag, store: Store
) -> None:
    """Four drivers, whose jobs start, run on, and end or vanish at random, as seen by one that sees all."""
    cap, draw = 60.0, random.Random(7)
    known = {step.id: step for step in dag.steps}
    steps = [replace(step, seed=100 + seed) for seed in range(6) for step in dag.steps[:4]]
    with ExitStack() as stack:
        sessions = [stack.enter_context(Session(store, 1)) for _ in range(4)]
        ledgers = [
            BudgetLedger(store, Caps(dollars=cap), PRICED, lambda _: 1e-6, known, session)
            for session in sessions
        ]
        at_work: list[tuple[Worker, float]] = []
        spent, started = 0.0, 0
        for _ in range(120):
            ledger = draw.choice(ledgers)
            mine = [each for each in at_work if each[0].ledger is ledger]
            if draw.random() < 0.5:
                ledger.look()
            if not mine and steps:
                worker = Worker(store, ledger, steps[-1])
                if not worker.refused:
                    steps.pop()
                    started += 1
                    at_work.append((worker, 0.0))
            for each in mine:
                worker, age = each
                at_work.remove(each)
                ledger.extend([worker.running], ahead=0.5)
                age = min(worker.limit.seconds, age + draw.uniform(0.0, 3.0))
                worker.age(age)
                if age >= worker.limit.seconds or draw.random() < 0.2:
                    worker.end(age)
                    spent += age
                else:
                    at_work.append((worker, age))
            assert spent + sum(worker.reserved for worker, _ in at_work) <= cap * (1 + 1e-9)
        assert started > 8
        assert spent + sum(age for _, age in at_work) > 0.75 * cap


DRIVER = """
import sys, time
from sweeps.execute.drivers.drivers import Session, process_began
from sweeps.store.store import Store
with Session(Store(sys.argv[1]), 1, process_began()):
    print("at work", flush=True)
    time.sleep(60)
"""


@pytest.mark.alone
def test_hours_of_drivers_that_are_killed_every_moment_count(
    small_spec: dict[str, Any], dag: Dag, store: Store
) -> None:
    """From the start of each process; a driver that finds them over starts nothing."""
    drove = 0.0
    for _ in range(3):
        began = time.monotonic()
        with subprocess.Popen([sys.executable, "-c", DRIVER, store.root], stdout=subprocess.PIPE) as driver:
            assert driver.stdout
            driver.stdout.readline()
            time.sleep(0.2)
            driver.kill()
            driver.wait()
            drove += time.monotonic() - began
    executor = Pretend(store)
    over = parse_sweep(small_spec | {"caps": {"hours": (drove - 0.3) / 3600}})
    state = run(dag, store, executor, seconds, ignore, over)
    assert state.halted
    assert state.halted.startswith("caps.hours: ")
    assert executor.attempts == []
    enough = parse_sweep(small_spec | {"caps": {"hours": (drove + 600) / 3600}})
    assert run(dag, store, Pretend(store), seconds, ignore, enough).complete


def test_hours_are_those_of_all_drivers_and_of_what_is_ahead(store: Store) -> None:
    with Session(store, 1, time.monotonic() - 100.0) as first:
        ledger = BudgetLedger(store, Caps(hours=116 / 3600), Devices(), seconds, {}, first)
        assert ledger.broken(2.0) is None
        assert "of 0.0322 hours of drivers' wall time" in (ledger.broken(20.0) or "")
        with Session(store, 1, time.monotonic() - 4.0):
            assert ledger.broken(2.0) is None
            assert ledger.broken(8.0)  # twice that, as two are at work
        with Session(store, 1, time.monotonic() - 50.0):
            assert ledger.broken(0.0)
        assert ledger.broken(0.0)  # which has ended, and counts


def test_lost_attempts_count_against_caps(small_spec: dict[str, Any], dag: Dag, store: Store) -> None:
    """A step that is preempted at its end again and again does not spend more than the cap."""
    victim = dag.steps[0]
    capped = parse_sweep(small_spec | {"caps": {"flops": 4.5 * victim.flops_to_spend}})
    executor = Pretend(store, lambda s: (Ending.CRASHED, "died") if s.id == victim.id else None, slots=1)
    only = Dag(steps=(victim,), asked=1)
    for _ in range(2):  # it is given up after three, and tried again by a new start
        state = run(only, store, executor, seconds, ignore, capped)
    assert state.halted
    assert executor.attempts.count(victim.id) == 4


def test_a_step_that_can_never_be_placed_is_named_before_anything_runs(
    small_spec: dict[str, Any], dag: Dag, store: Store
) -> None:
    rules = [{"cpus": 1}, {"from_params": "5k", "gpus": 8}]
    executor = Pretend(store)
    with pytest.raises(
        InputError,
        match=r"resources: pretrain 7.\d+K on 32K cannot run on 1 cpu and 8 gpus: it has no",
    ):
        run(dag, store, executor, seconds, ignore, parse_sweep(small_spec | {"resources": rules}))
    assert not executor.attempts


class OnNodes(Pretend):
    """Runs the jobs on nodes, on some of which no worker can start."""

    def __init__(self, store: Store, nodes: list[NodeCapacity], liars: Sequence[str] = ()) -> None:
        super().__init__(store)
        self.dashboard: str | None = None
        self.placement, self.liars, self.told = JobPlacement(nodes), liars, list[tuple[str, str]]()
        self.gone: Sequence[str] = ()

    def misfit(self, resources: Resources) -> str | None:
        return None  # an autoscaler could add nodes of any size

    def submit(self, job: Job) -> None:
        super().submit(job)
        self.told += [(step.id, name) for step in job.steps for name in job.nodes]

    def wait(self, seconds: float) -> list[AttemptOutcome]:
        if not self.queue:
            return []
        job = self.queue[0]
        self.placement.release(job.name)
        if job.nodes[0] not in {*self.liars, *self.gone}:
            return super().wait(seconds)
        self.queue.pop(0)
        if job.nodes[0] in self.gone:
            return job.all_ended(Ending.LOST, "srun ended with 1 and told nothing", gone=False)
        return job.all_ended(Ending.UNSTARTED, f"{job.nodes[0]} lacks GPUs that it announces")


def test_a_node_that_lies_is_avoided_and_costs_no_step_a_retry(dag: Dag, store: Store) -> None:
    """Four of five nodes lie, more than a step has retries; with all of them, the sweep stops with the reason."""
    nodes = [NodeCapacity(f"n{number}", 1, 1, host=f"gpu-{number}") for number in range(5)]
    executor = OnNodes(store, nodes, liars=("n0", "n1", "n2", "n3"))
    executor.usual = Resources(gpus=1)
    state = run(dag, store, executor, seconds, ignore)
    assert state.complete
    assert sorted(name for _, name in executor.told if name in executor.liars) == ["n0", "n1", "n2", "n3"]
    said = [trouble for trouble in state.troubles if "avoided for 60 minutes" in trouble]
    assert len(said) == 4
    assert "gpu-0: avoided for 60 minutes, as no worker can start there: n0 lacks GPUs" in "".join(said)

    other = Store(Path(store.root).parent / "other")
    other.create()
    executor = OnNodes(other, nodes[:2], liars=("n0", "n1"))
    executor.usual = Resources(gpus=1)
    state = run(dag, other, executor, seconds, ignore)
    assert not state.done
    assert state.halted is not None
    assert "no worker can be started: n1 lacks GPUs" in state.halted


def test_a_node_that_is_gone_and_still_listed_does_not_swallow_one_step_after_the_other(
    dag: Dag, store: Store
) -> None:
    """As one of a Slurm allocation is; it seems free, and would use up the retries of every step."""
    executor = OnNodes(store, [NodeCapacity("gone", 1, 1, speed=2.0), NodeCapacity("n1", 1, 1)])
    executor.gone, executor.usual = ("gone",), Resources(gpus=1)
    state = run(dag, store, executor, seconds, ignore)
    assert state.complete
    assert [name for _, name in executor.told].count("gone") == 1
    (said,) = state.troubles
    assert said.startswith("gone: avoided for 10 minutes, as no worker can start there: srun ended with 1")


def test_nodes_that_never_come_are_told_with_what_waits_for_them(
    small_spec: dict[str, Any], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the driver's output, the status and the webhook; no longer once they are there."""
    monkeypatch.setattr(cohort_placer, "PATIENCE_SECONDS", 0.05)
    sweep = parse_sweep(small_spec | {"resources": [{"from_params": "5k", "gpus": 8, "nodes": 4}]})
    dag = dag_of(sweep)
    record_sweep(store, sweep, dag)
    executor = OnNodes(store, [NodeCapacity("n0", 1)])
    executor.dashboard = "http://127.0.0.1:8265/#/jobs/01000000"
    hook, sent = Webhook("http://127.0.0.1:1/", "small", store.root), list[dict[str, object]]()
    monkeypatch.setattr(hook, "_post", sent.append)
    told: list[str] = []

    def watch(state: State) -> None:
        hook.watch(state)
        if state.waiting and not told and state.waiting in str(status(store)):
            told.append(state.waiting)
            assert state.waiting in state.troubles
            assert executor.dashboard in str(status(store))
            executor.placement.update(NodeCapacity(f"n{number}", 8, 8) for number in range(4))

    state = run(dag, store, executor, seconds, watch, sweep)
    assert state.complete
    assert state.waiting is None
    (said,) = told
    assert "for 1 cpu and 8 gpus on each of 4 nodes: 0 of 1 nodes could take it; 2 steps are ready" in said
    hook.end(state)
    assert [message["event"] for message in sent] == ["waiting", "done"]
    assert said in str(sent[0]["text"])
    assert sent[0]["dashboard"] == executor.dashboard


def test_the_first_gpu_that_comes_changes_what_waiting_steps_ask_for(dag: Dag, store: Store) -> None:
    executor = OnNodes(store, [NodeCapacity("head", 0)])
    placer, waiting = cohort_placer.CohortPlacer(executor, [], seconds), deque([(dag.steps[0],)])
    assert placer.choose(waiting) == []
    executor.usual = Resources(gpus=0.25)
    executor.placement.update([NodeCapacity("n0", 1, 1)])
    (slot,) = placer.choose(waiting)
    assert slot.resources == executor.usual
