"""Budget of a store: cost of all attempts, reservations, and caps, over all drivers.

Spent is what the attempts in the store tell, of all its sweeps, so that no restart and no other driver is
forgotten. A job is reserved before it is submitted, and what may be spent unseen is counted ahead; a job
whose driver has fallen silent ends with its reservation. So a cap is passed by at most 5 %, or by what one
step reserves if that is more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from scaling.errors import InputError
from sweeps.dag.expand import SCHEMA, Step
from sweeps.estimate.bill import HOUR, Bill, attempt_bills, reported_resources
from sweeps.execute.drivers import Session
from sweeps.execute.fork_server import GRACE_SECONDS
from sweeps.execute.jobs import Job
from sweeps.execute.reservations import Reservation, Reservations
from sweeps.spec.resources import Caps, Devices
from sweeps.store.history import AttemptHistory
from sweeps.store.leases import Attempt, attempts
from sweeps.store.processes import has_exited
from sweeps.store.store import Store

STOPPING_SECONDS = 2.0
"""Seconds in which a process stops when asked to, unless its optimizer steps take longer."""

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

    def __post_init__(self) -> None:
        self.history, self.reservations = AttemptHistory(self.store), Reservations(self.store)
        caps = self.caps
        self.capped = (caps.flops, caps.gpu_hours, caps.dollars) != (None, None, None)

    def look(self) -> None:
        """Read the cost of all attempts in the store so far."""
        if not self.capped:
            return
        for step, history in self.history.read().items():
            if step in self.history.over:
                self.settled += sum(self._bills(step, history), Bill())
                self.under_way.pop(step, None)
            else:
                self.under_way[step] = list(zip(history, self._bills(step, history), strict=True))

    def observe(self, step: str, history: Sequence[Attempt]) -> None:
        """Update the cost of the attempts at one step, before the next look."""
        if self.capped and step not in self.history.over:
            self.under_way[step] = list(zip(history, self._bills(step, history), strict=True))

    def reserve(self, job: Job) -> str | None:
        """Reserve the estimated cost of ``job``; or return the cap it would exceed, and reserve nothing."""
        if not self.capped:
            return None
        asked = [
            Reservation(self.session.name, job.name, step, number, self._estimate(each, job))
            for each, (step, number) in zip(job.steps, job.attempts.items(), strict=True)
        ]
        while True:
            self.reservations.read()
            if any(self.taken(each.step, each.number) for each in asked):
                return ALREADY_RESERVED
            if why := self._beyond(sum((each.bill for each in asked), self._committed())):
                return f"{why} with {job.steps[0].label}"
            if self.reservations.add(asked):
                self.reservations.read()
                return None

    def bound(self, job: Job) -> float | None:
        """Return the seconds after which ``job`` ends without its driver; None if no cap counts time."""
        caps = self.caps
        if (caps.gpu_hours, caps.dollars, caps.hours) == (None, None, None):
            return None
        return sum(self.seconds(step) for step in job.steps)

    def taken(self, step: str, number: int) -> bool:
        """Return True if another driver has reserved an attempt that is not claimed yet."""
        return any(
            each.step == step and each.number == number and each.driver != self.session.name
            for each in self._unclaimed()
        )

    def broken(self, ahead: float) -> str | None:
        """Return the cap that running attempts will exceed within ``ahead`` seconds, if any."""
        coming = Bill()
        for history in self.under_way.values():
            last = history[-1][0] if history else None
            if last and not last.ending and not has_exited(last.told):
                seconds = (ahead + stopping_seconds(last)) / last.told.get("members", 1)
                coming += Bill.of(0.0, seconds, reported_resources(last), self.devices)
        return self._beyond(self.spent + coming) or self._beyond_hours(ahead)

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

    def _estimate(self, step: Step, job: Job) -> Bill:
        return Bill.of(step.flops_to_spend, self.seconds(step), job.resources, self.devices)

    def _bills(self, step: str, history: Sequence[Attempt]) -> list[Bill]:
        return attempt_bills(self._flops(step), history, self.devices)

    def _flops(self, step: str) -> float:
        """Return the FLOPs of a step, also of another sweep."""
        if step in self.steps:
            return self.steps[step].flops_to_spend
        return flops_recorded(self.store, step)

    def _committed(self) -> Bill:
        """Return the cost spent, and that reserved by running and planned attempts."""
        total = sum((each.bill for each in self._unclaimed()), self.settled)
        for step, history in self.under_way.items():
            for attempt, bill in history:
                running = attempt is history[-1][0] and not attempt.ending and not has_exited(attempt.told)
                total += bill.at_least(self._reserved(step, attempt)) if running else bill
        return total

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
                self.observe(each.step, attempts(self.store, each.step))
            claimed = each.number <= len(self.under_way.get(each.step, ()))
            if claimed or each.step in self.history.over or each.driver in self.session.drivers.over:
                del newest[key]
        return [each for each in newest.values() if self.session.works(each.driver)]

    def _beyond(self, total: Bill) -> str | None:
        for name in ("flops", "gpu_hours", "dollars"):
            cap, would = getattr(self.caps, name), getattr(total, name)
            if cap is not None and would > cap:
                spent = getattr(self.spent, name)
                return f"caps.{name}: {spent:.3g} of {cap:.3g} spent, {would:.3g} would be"
        return None


def stopping_seconds(attempt: Attempt) -> float:
    """Return the seconds in which an attempt stops when asked: after its next step, with a checkpoint."""
    pace = attempt.told.get("seconds", 0.0) / max(1, attempt.done)
    return min(GRACE_SECONDS, max(STOPPING_SECONDS, 2 * pace))


def spent_by(
    store: Store, histories: Mapping[str, Sequence[Attempt]], devices: Devices, flops: Mapping[str, float]
) -> Bill:
    """Return the total cost of attempts by step; ``flops`` are those of known steps."""
    return sum(
        (
            bill
            for step, history in histories.items()
            for bill in attempt_bills(flops.get(step) or flops_recorded(store, step), history, devices)
        ),
        Bill(),
    )


def flops_recorded(store: Store, step: str) -> float:
    """Return the FLOPs of a step from its record in the store, or from its result if of another version.

    Raises:
        InputError: if the record is damaged, as its cost would be lost.
    """
    record = store.read(step, "step.json")
    if record is None or record.get("schema", 0) != SCHEMA:
        return float((store.result(step) or {}).get("flops", {}).get("total", 0.0))
    try:
        return Step.from_json(record).flops_to_spend
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"{store.root}/{step}/step.json: damaged ({why}); delete it") from None
