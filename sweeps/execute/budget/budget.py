"""Budget of a store: cost of all attempts, reservations, and caps, over all drivers.

Spent is what the attempts in the store tell, of all its sweeps, so that no restart and no other driver is
forgotten. A job is reserved before it is submitted. Under a cap of time the reservation is its time limit,
which the kernel enforces (:mod:`sweeps.store.time_limit`) and which only another reservation extends. So what
has ended and what can still be spent never exceed a cap together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sweeps.dag.expand import Step
from sweeps.estimate.bill import (
    HOUR,
    Bill,
    attempt_bills,
    declared_flops,
    flops_recorded,
    reported_resources,
)
from sweeps.execute.budget.cap_check import CapCheck, beyond_caps
from sweeps.execute.budget.reservations import Reservation, Reservations
from sweeps.execute.drivers.drivers import Session
from sweeps.execute.jobs import AttemptOutcome, Job
from sweeps.execute.state import Running
from sweeps.spec.resources import Caps, Devices
from sweeps.store import clock
from sweeps.store.heartbeats import FIRST_BEAT
from sweeps.store.history import AttemptHistory
from sweeps.store.leases import LEASE_TIMEOUT, Attempt
from sweeps.store.outcomes import Ending
from sweeps.store.processes import has_exited
from sweeps.store.store import Store
from sweeps.store.time_limit import EXIT_SECONDS, STOPPING_SECONDS, stopping_seconds

LEAST_SECONDS = STOPPING_SECONDS + 1.0
"""Shortest time limit of a new job, as its process starts and stops within it."""
LEAST_EXTENSION_SECONDS = 0.5
"""Shortest extension of a time limit."""
EXTENSION_SHARE = 0.1
"""Least extension as a share of the time that a job has run, so that long jobs extend rarely."""

ALREADY_RESERVED = "another driver is about to begin it"


@dataclass
class BudgetLedger:
    """Cost spent and reserved, compared with the caps."""

    store: Store
    caps: Caps
    devices: Devices
    seconds: Callable[[Step], float]
    """Estimated seconds of a step."""
    steps: Mapping[str, Step]
    """Steps of this driver's DAG by id."""
    session: Session
    """This driver, with its view of the others."""
    settled: Bill = field(default_factory=Bill)
    """Cost of finished steps."""
    under_way: dict[str, list[tuple[Attempt, Bill]]] = field(default_factory=dict)
    """Attempts and costs of other steps."""
    time_limits: dict[str, float] = field(default_factory=dict)
    """Time limits of this driver's jobs in seconds, if a cap counts time."""
    check: CapCheck = field(init=False)
    """Last comparison with the caps."""

    def __post_init__(self) -> None:
        self.history, self.reservations = AttemptHistory(self.store), Reservations(self.store)
        caps, self.check = self.caps, CapCheck(self.caps, Bill(), Bill(), Bill())
        self.capped = (caps.flops, caps.gpu_hours, caps.dollars) != (None, None, None)
        self.timed = (caps.gpu_hours, caps.dollars, caps.hours) != (None, None, None)
        self._seen: dict[tuple[str, int], dict[str, Any]] = {}
        """Last record of each attempt that is not settled."""
        self._heard: dict[str | tuple[str, int], float] = {}
        """Times of the last change seen in a record of each of their jobs, by ``time.monotonic()``."""
        self._granted: set[str] = set()
        """Jobs of this driver with a reservation."""
        self._looked = -math.inf
        """Start of the last look, by the same clock; nothing later is known of any attempt."""
        self._exited: set[tuple[str, int]] = set()
        """Attempts whose process had exited before the last look, so that their records are final."""

    def look(self, watched: Iterable[str] = ()) -> None:
        """Read the cost of all attempts in the store so far; without a cap only attempts at ``watched``."""
        if not self.capped:
            self.history.refresh(watched, lazily=True)
            return
        self.reservations.read()
        self._looked = clock.monotonic()
        self._exited = {
            (step, history[-1][0].number)
            for step, history in self.under_way.items()
            if history and not history[-1][0].ending and has_exited(history[-1][0].told)
        }
        reserved = {step for _, step in self.reservations.newest}
        exited = {step for step, _ in self._exited}
        for step, history in self.history.read_unfinished({*watched, *reserved}, exited).items():
            self._hear(step, history)
            if step in self.history.over:
                self.settled += sum(self._bills(step, history), Bill())
                self.under_way.pop(step, None)
            else:
                self.under_way[step] = list(zip(history, self._bills(step, history), strict=True))

    def _hear(self, step: str, history: Sequence[Attempt]) -> None:
        """Note which jobs have changed a record since the last look."""
        for attempt in history:
            key = step, attempt.number
            if attempt.settled:
                self._seen.pop(key, None)
            elif self._seen.get(key) != attempt.told:
                self._seen[key], self._heard[attempt.job or key] = attempt.told, clock.monotonic()

    def observe(self, step: str, history: Sequence[Attempt]) -> None:
        """Update the cost of the attempts at one step, before the next look."""
        if self.capped and step not in self.history.over:
            self.under_way[step] = list(zip(history, self._bills(step, history), strict=True))

    def reserve(self, job: Job, ahead: float = 0.0) -> str | None:
        """Reserve the cost of ``job``; or return the cap it would exceed, and reserve nothing."""
        return self.reserve_all([job], ahead).get(job.name)

    def reserve_all(self, jobs: Sequence[Job], ahead: float = 0.0) -> dict[str, str]:
        """Reserve the cost of ``jobs`` in one entry; return the caps that others would exceed, by job.

        Under a cap of time, their time limits are in ``time_limits`` then: their estimates, with the time in
        which these can be extended, or what the cap leaves.

        Args:
            jobs: the jobs, the most important first.
            ahead: seconds between two looks at the store.
        """
        wanted = {job.name: self._estimate(job) + _lead(ahead, FIRST_BEAT, STOPPING_SECONDS) for job in jobs}
        if not self.capped:
            self.time_limits |= wanted if self.timed else {}
            return {}
        while True:
            self.reservations.read()
            planned, refused = self._plan(jobs, wanted)
            void = [each for each in self.reservations.newest.values() if self._is_void(each)]
            if not (planned or void) or self._add(planned, void):
                return refused

    def _is_void(self, made: Reservation) -> bool:
        """Return True for one of this driver whose job was not started, as the store failed meanwhile."""
        return made.driver == self.session.name and made.job not in self._granted and made.bill != Bill()

    def _plan(
        self, jobs: Sequence[Job], wanted: Mapping[str, float]
    ) -> tuple[list[tuple[Job, float]], dict[str, str]]:
        """Return the jobs that fit below the caps together, with their seconds, and why others do not."""
        planned, refused = list[tuple[Job, float]](), dict[str, str]()
        check, taken = self.check_caps(), self._reserved_by_others()
        for job in jobs:
            if any(self._taken(step, number, taken) for step, number in job.attempts.items()):
                refused[job.name] = ALREADY_RESERVED
            elif why := self.refusal(job):
                refused[job.name] = why
            else:
                most = min(wanted[job.name], self._seconds_left(job, check.committed))
                planned.append((job, max(self._least_seconds(job), most if self.timed else 0.0)))
                check.add(self._cost(job, planned[-1][1]))
        return planned, refused

    def check_caps(self) -> CapCheck:
        """Return the comparison with the caps, as far as the store has been read."""
        committed = self._committed()  # reads what drivers that have exited left
        self.check = CapCheck(self.caps, self.spent, self._ended(), committed)
        return self.check

    def refusal(self, job: Job) -> str | None:
        """Return the cap that ``job`` would exceed, by the last comparison; None if it fits."""
        why = self.check.refusal(self._cost(job, self._least_seconds(job)))
        return why and f"{why} with {job.steps[0].label}"

    @property
    def may_free(self) -> bool:
        """True if the last refusal is due to running attempts, which may need less than is reserved."""
        return self.check.may_free

    def _least_seconds(self, job: Job) -> float:
        """Return the seconds that are reserved for a job at least."""
        return max(self._estimate(job), LEAST_SECONDS) if self.timed else self._estimate(job)

    def _estimate(self, job: Job) -> float:
        return sum(self.seconds(step) for step in job.steps)

    def extend(self, running: Iterable[Running], ahead: float) -> None:
        """Extend the time limits of running jobs that would end within two looks, as far as caps allow.

        Args:
            running: the attempts of this driver.
            ahead: seconds between two looks at the store.
        """
        if not self.timed:
            return
        first = {each.job.name: each for each in reversed(list(running))}
        before = {name: seconds for name, seconds in self.time_limits.items() if name in first}
        self.time_limits = dict(before)
        wanted: list[tuple[Job, float]] = []
        for each in first.values():
            if not self.capped:  # nothing is reserved under a cap on the drivers' hours
                elapsed = clock.monotonic() - each.since
                self.time_limits[each.job.name] += max(0.0, self._wanted(each.job, elapsed, {}, ahead))
            elif told := self._last_record(each.job):
                elapsed = told.get("elapsed", 0.0) + told.get("due", 0.0)
                wanted += [(each.job, self._wanted(each.job, elapsed, told, ahead))]
        self._extend([(job, seconds) for job, seconds in wanted if seconds > 0.0])
        if self.time_limits != before:
            self.session.extend(self.time_limits)

    def _extend(self, wanted: Sequence[tuple[Job, float]]) -> None:
        """Extend the time limits of jobs in one entry, each by what it wants, or what is left."""
        while wanted:
            self.reservations.read()
            planned, committed = list[tuple[Job, float]](), self._committed()
            for job, seconds in wanted:
                more = min(seconds, self._seconds_left(job, committed))
                if more >= LEAST_EXTENSION_SECONDS:
                    planned.append((job, self.time_limits[job.name] + more))
                    committed += self._cost(job, more)
            if not planned or self._add(planned):
                return

    def _wanted(self, job: Job, elapsed: float, told: Mapping[str, Any], ahead: float) -> float:
        """Return the seconds by which the time limit of a job should be extended; not positive for none."""
        left = self.time_limits[job.name] - elapsed
        lead = _lead(ahead, told.get("due", 0.0), stopping_seconds(told))
        return lead - left + max(ahead, EXTENSION_SHARE * elapsed) if left < lead else 0.0

    def _last_record(self, job: Job) -> Mapping[str, Any] | None:
        """Return the last record of the job's process; None if it has none yet, or has ended."""
        for step in job.attempts:
            for attempt, _ in self.under_way.get(step, [])[-1:]:
                if attempt.job == job.name and not attempt.ending:
                    return attempt.told
        return None

    def _add(self, planned: Sequence[tuple[Job, float]], void: Iterable[Reservation] = ()) -> bool:
        """Reserve seconds for jobs and give up ``void`` reservations.

        False, with nothing done, if others have reserved since the last reading.
        """
        asked = [replace(each, bill=Bill()) for each in void] + [
            Reservation(self.session.name, job.name, step, number, self._cost(job, seconds, part))
            for job, seconds in planned
            for part, (step, number) in zip(job.steps, job.attempts.items(), strict=True)
        ]
        if not self.reservations.add(asked):
            return False
        self._granted.update(job.name for job, _ in planned)
        if self.timed:
            self.time_limits |= {job.name: seconds for job, seconds in planned}
        return True

    def _cost(self, job: Job, seconds: float, step: Step | None = None) -> Bill:
        """Return the cost of ``seconds`` of a job; of one step, its FLOPs and an equal share of the time."""
        steps = [step] if step else job.steps
        share = seconds * len(steps) / len(job.steps)
        return Bill.of(sum(each.flops_to_spend for each in steps), share, job.resources, self.devices)

    def _seconds_left(self, job: Job, committed: Bill) -> float:
        """Return the seconds on the resources of ``job`` that the caps leave."""
        second, left = Bill.of(0.0, 1.0, job.resources, self.devices), math.inf
        for name in ("gpu_hours", "dollars"):
            cap, rate = getattr(self.caps, name), getattr(second, name)
            if cap is not None and rate:
                left = min(left, (cap - getattr(committed, name)) / rate)
        return left

    def explained(self, outcome: AttemptOutcome, job: Job) -> AttemptOutcome:
        """Return an outcome with the time limit as its reason, if the process of ``job`` was killed there."""
        limit = self.time_limits.get(job.name, math.inf)
        if outcome.ending is not Ending.LOST or (outcome.lived or 0.0) < limit - 2 * EXIT_SECONDS:
            return outcome
        return replace(
            outcome, reason=f"it was killed when the {limit:.3g} s reserved under the cap were used up"
        )

    def taken(self, step: str, number: int) -> bool:
        """Return True if an attempt is claimed, or if another driver has reserved it."""
        return self._taken(step, number, self._reserved_by_others())

    def _taken(self, step: str, number: int, reserved: Container[tuple[str, int]]) -> bool:
        return number <= len(self.under_way.get(step, ())) or (step, number) in reserved

    def _reserved_by_others(self) -> set[tuple[str, int]]:
        """Return the unclaimed attempts that other drivers have reserved."""
        mine = self.session.name
        return {(each.step, each.number) for each in self._unclaimed() if each.driver != mine}

    def broken(self, ahead: float) -> str | None:
        """Return the cap that attempts without a time limit will exceed within ``ahead`` seconds, if any."""
        coming = Bill()
        for history in self.under_way.values():
            last = history[-1][0] if history else None
            limited = last and "time_limit" in last.told
            if last and not limited and not last.ending and not has_exited(last.told):
                seconds = (ahead + stopping_seconds(last.told)) / last.told.get("members", 1)
                coming += Bill.of(0.0, seconds, reported_resources(last), self.devices)
        return beyond_caps(self.caps, self.spent, self.spent + coming) or self._beyond_hours(ahead)

    @property
    def spent(self) -> Bill:
        """Cost of all attempts so far."""
        return sum((bill for history in self.under_way.values() for _, bill in history), self.settled)

    def _beyond_hours(self, ahead: float) -> str | None:
        cap = self.caps.hours
        if not cap:
            return None
        spent, working = self.session.all_seconds()
        if spent + working * (ahead + STOPPING_SECONDS) <= cap * HOUR:
            return None
        return f"caps.hours: {spent / HOUR:.3g} of {cap:.3g} hours of drivers' wall time are used"

    def _bills(self, step: str, history: Sequence[Attempt]) -> list[Bill]:
        return attempt_bills(self._flops(step), history, self.devices)

    def _flops(self, step: str) -> float:
        """Return the FLOPs of a step, also of another sweep."""
        known = self.steps.get(step)
        if known is None:
            return flops_recorded(self.store, step)
        declared = declared_flops(self.store.result(step)) if known.trainer else None
        return declared or known.flops_to_spend

    def _committed(self) -> Bill:
        """Return the cost spent, and that reserved by running and planned attempts."""
        total = sum((each.bill for each in self._unclaimed()), self._ended())
        for step, attempt, bill in self._under_way(running=True):
            total += bill.at_least(self._reserved(step, attempt))
        return total

    def _ended(self) -> Bill:
        """Return the cost of the attempts that have ended."""
        return sum((bill for _, _, bill in self._under_way(running=False)), self.settled)

    def _under_way(self, *, running: bool) -> Iterator[tuple[str, Attempt, Bill]]:
        """Yield step, attempt and cost of the attempts that may be running, or of those that are not."""
        for step, history in self.under_way.items():
            for attempt, bill in history:
                if self._may_run(step, attempt, last=attempt is history[-1][0]) is running:
                    yield step, attempt, bill

    def _may_run(self, step: str, attempt: Attempt, *, last: bool) -> bool:
        """Return True if an attempt's process may be running, or if its lifetime is still to be recorded."""
        if attempt.ending:
            return not (attempt.settled or self._expired(step, attempt))
        return last and (step, attempt.number) not in self._exited and not self._expired(step, attempt)

    def _expired(self, step: str, attempt: Attempt) -> bool:
        """Return True if a process under a time limit has been silent until the kernel has killed it.

        It writes for all steps of its job, also of those that have ended before the others.
        """
        key, told = (step, attempt.number), attempt.told
        if "time_limit" not in told or self._seen.get(key) != told:
            return False
        silent = self._looked - self._heard[attempt.job or key]
        return bool(silent > told.get("patience", LEASE_TIMEOUT))

    def _reserved(self, step: str, attempt: Attempt) -> Bill:
        """Return the cost reserved by a running attempt, or its estimate if it has no reservation."""
        if made := self.reservations.of_job.get((attempt.job or "", step)):
            return made.bill
        if step not in self.steps:
            return Bill()
        whole = self.steps[step]
        return Bill.of(whole.flops_to_spend, self.seconds(whole), reported_resources(attempt), self.devices)

    def _unclaimed(self) -> list[Reservation]:
        """Return the reservations of active drivers for attempts that are not claimed yet.

        An attempt of a driver that has exited may have begun and ended since the last look; it is read first.
        """
        newest = self.reservations.newest
        for key, each in list(newest.items()):
            if not self.session.works(each.driver):
                self.history.refresh([each.step])
                self.observe(each.step, self.history.of(each.step))
            claimed = each.number <= len(self.under_way.get(each.step, ()))
            if claimed or each.step in self.history.over or each.driver in self.session.drivers.over:
                del newest[key]
        working = [each for each in newest.values() if self.session.works(each.driver)]
        return [each for each in working if not self._is_void(each)]


def _lead(ahead: float, due: float, stopping: float) -> float:
    """Return the seconds before a job's limit at which it must be extended, or its process begins to stop.

    Its last record is up to ``due`` seconds old and the driver looks every ``ahead`` seconds; the process
    reads of the extension before it needs ``stopping`` seconds to write a checkpoint.
    """
    return 2 * ahead + 2 * due + stopping
