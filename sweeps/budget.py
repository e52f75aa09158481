"""What a sweep has spent and may still spend: reserved when a job is submitted, settled when it ends.

What was spent is read from the attempts in the store, so that no restart forgets it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields

from scaling.errors import InputError
from sweeps.jobs import Job
from sweeps.leases import Attempt
from sweeps.resources import Caps, Devices, Resources
from sweeps.spec import Sweep
from sweeps.steps import Step

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


def attempt_flops(step: Step, attempt: Attempt) -> float:
    """FLOPs of an attempt, by the optimiser steps that it took."""
    told = attempt.end or attempt.beat
    if "steps_done" not in told:
        return 0.0
    whole = told["steps"] - (step.start.ends if step.start else 0)
    return step.flops_to_spend * (told["steps_done"] - told.get("began", 0)) / max(1, whole)


def attempt_bill(step: Step, attempt: Attempt, devices: Devices) -> Bill:
    """What an attempt has cost so far."""
    claim = attempt.claim
    resources = Resources(
        **{name: claim[name] for name in ("cpus", "gpus", "nodes") if claim.get(name) is not None}
    )
    seconds = (attempt.end or attempt.beat).get("seconds", 0.0) / claim.get("members", 1)
    return Bill.of(attempt_flops(step, attempt), seconds, resources, devices)


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
        bills = {
            (step, number): Bill.of(each.flops_to_spend, self.seconds(each), job.resources, self.devices)
            for each, (step, number) in zip(job.steps, job.attempts.items(), strict=True)
        }
        if why := self._beyond(_total(self.settled, self.reserved, bills)):
            return f"{why} with {job.steps[0].label}"
        self.reserved |= bills
        return None

    def observe(self, step: Step, attempt: Attempt, *, over: bool) -> None:
        """Account for what an attempt has cost so far; in the place of what was reserved once it is over."""
        key = step.id, attempt.number
        bill = attempt_bill(step, attempt, self.devices)
        if over:
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


def caps_of(sweep: Sweep) -> Caps:
    """The caps of a spec, in either spelling.

    Raises:
        InputError: for a cap in dollars where no price is known.
    """
    caps = sweep.caps
    if caps.dollars and sweep.hardware.price is None:
        raise InputError(
            "caps.dollars: no price is known; give hardware.name, such as h100, or hardware.dollars_per_hour"
        )
    limits = [limit for limit in (caps.flops, sweep.max_flops) if limit is not None]
    return caps.model_copy(update={"flops": min(limits, default=None)})
