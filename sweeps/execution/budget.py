"""What a sweep has spent and may still spend: reserved when a job is submitted, settled when it ends.

What was spent is read from the attempts in the store, so that no restart forgets it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

from sweeps.dag.steps import Step
from sweeps.execution.jobs import Job
from sweeps.specs.resources import Caps, Devices, Resources
from sweeps.storage.leases import Attempt

HOUR = 3600.0
Key = tuple[str, int]
"""A step's id and the number of an attempt at it."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What work has cost, or will."""

    flops: float = 0.0
    gpu_hours: float = 0.0
    dollars: float = 0.0

    def __add__(self, other: Bill) -> Bill:
        return Bill(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @classmethod
    def of(cls, flops: float, seconds: float, resources: Resources, devices: Devices) -> Bill:
        """For so many FLOPs in so many seconds on ``resources``; dollars only if the price is known."""
        gpus = seconds * resources.gpus * resources.nodes / HOUR
        cores = seconds * resources.cpus * resources.nodes / HOUR
        return cls(flops, gpus, (devices.price or 0.0) * (gpus or cores))


def bills(flops: float, history: Sequence[Attempt], devices: Devices) -> list[Bill]:
    """What each attempt at a step that takes ``flops`` has cost so far, by what it told."""
    first = min((each.told["began"] for each in history if "began" in each.told), default=0)
    found = []
    for attempt in history:
        told = attempt.told
        whole = max(1, told.get("steps", 1) - first)
        spent = flops * (attempt.done - told.get("began", attempt.done)) / whole
        resources = Resources(**{name: told[name] for name in ("cpus", "gpus", "nodes") if name in told})
        seconds = told.get("elapsed", 0.0) / told.get("members", 1)
        found.append(Bill.of(spent, seconds, resources, devices))
    return found


@dataclass
class Ledger:
    """What is spent and reserved, against the caps."""

    caps: Caps
    devices: Devices
    seconds: Callable[[Step], float]
    """Estimated, of a step."""
    settled: dict[Key, Bill] = field(default_factory=dict)
    under_way: dict[Key, Bill] = field(default_factory=dict)
    reserved: dict[Key, Bill] = field(default_factory=dict)

    def reserve(self, job: Job) -> str | None:
        """Reserve what ``job`` will take; or which cap it would break, and nothing is reserved."""
        asked = {
            (step, number): Bill.of(each.flops_to_spend, self.seconds(each), job.resources, self.devices)
            for each, (step, number) in zip(job.steps, job.attempts.items(), strict=True)
        }
        if why := self._beyond(_total(self.settled, self.reserved, asked)):
            return f"{why} with {job.steps[0].label}"
        self.reserved |= asked
        return None

    def observe(self, step: Step, history: Sequence[Attempt], over: int = 0) -> None:
        """Account for what the attempts at a step have cost so far.

        For those that are over, by what they told or because their number is at most ``over``, this takes the
        place of what was reserved.
        """
        for attempt, bill in zip(history, bills(step.flops_to_spend, history, self.devices), strict=True):
            key = step.id, attempt.number
            if attempt.ending or attempt.number <= over:
                self.reserved.pop(key, None)
                self.under_way.pop(key, None)
                self.settled[key] = bill
            else:
                self.under_way[key] = bill

    def broken(self) -> str | None:
        """Which cap what is spent by now has broken, if any."""
        return self._beyond(_total(self.settled, self.under_way))

    @property
    def spent(self) -> Bill:
        """By all attempts that are over."""
        return _total(self.settled)

    def _beyond(self, total: Bill) -> str | None:
        for name in ("flops", "gpu_hours", "dollars"):
            cap, would = getattr(self.caps, name), getattr(total, name)
            if cap is not None and would > cap:
                return (
                    f"caps.{name}: {getattr(self.spent, name):.3g} of {cap:.3g} spent, {would:.3g} would be"
                )
        return None


def _total(*books: dict[Key, Bill]) -> Bill:
    return sum((bill for book in books for bill in book.values()), Bill())
