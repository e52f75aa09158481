"""Reading of all steps of a store: of finished ones a summary, of others all that is there.

A step is finished when it has a result and its last attempt has ended well. What it left is summed up once
and kept in the cache of this machine, so that later readings take time only for what has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sweeps.estimate.bill import Bill, attempt_bills, declared_flops, flops_recorded
from sweeps.spec.resources import Devices
from sweeps.store.leases import Attempt, attempts_all
from sweeps.store.listing import Listing, attempt_names
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store
from sweeps.watch.reading_cache import ReadingCache

BATCH = 2000
"""Steps whose files are in memory at a time."""
UNIT = Devices(dollars_per_hour=1.0)
"""Devices at a dollar an hour, by which the cost of a finished step is kept before its price is known."""
Value = Any
"""Value for JSON."""


class AttemptSpan(NamedTuple):
    """Time of one attempt."""

    start: float
    """Seconds since the epoch."""
    end: float
    ended_well: bool
    """True if it is done, or still running."""


class FinishedStep(NamedTuple):
    """Summary of a step that has a result and whose attempts have ended."""

    attempts: int
    declared_flops: float | None
    """FLOPs that its command has declared, if one trained it."""
    flops_share: float
    """FLOPs of all attempts, in those of the step."""
    gpu_hours: float
    device_hours: float
    """Hours that are paid for: of GPUs, or of cores without one."""
    spans: Sequence[Sequence[Any]]
    """Times of its attempts, each an :class:`AttemptSpan`."""

    @classmethod
    def of(cls, result: Mapping[str, Any], history: Sequence[Attempt]) -> FinishedStep:
        """Sum up a step."""
        cost = sum(attempt_bills(1.0, history, UNIT), Bill())
        spans = [span for attempt in history if (span := attempt_span(attempt))]
        declared = declared_flops(result)
        return cls(len(history), declared, cost.flops, cost.gpu_hours, cost.dollars, spans)

    def bill(self, flops: float, devices: Devices) -> Bill:
        """Return the cost of all attempts at a step of ``flops`` FLOPs."""
        return Bill(self.flops_share * flops, self.gpu_hours, (devices.price or 0.0) * self.device_hours)


@dataclass(frozen=True, slots=True)
class OpenStep:
    """All that the store holds of a step that is not finished."""

    names: set[str]
    """Names of its files, those of its attempts as ``attempts/<name>``."""
    history: list[Attempt]
    result: dict[str, Any] | None = None
    fault: str = ""
    """Fault of its result."""


@dataclass(frozen=True, slots=True)
class StoreReading:
    """Every step that was ever started in a store, of any sweep."""

    finished: dict[str, FinishedStep] = field(default_factory=dict)
    others: dict[str, OpenStep] = field(default_factory=dict)

    def spans(self, step: str) -> list[AttemptSpan]:
        """Return the times of the attempts at a step."""
        if known := self.finished.get(step):
            return [AttemptSpan(*span) for span in known.spans]
        history = self.others[step].history if step in self.others else []
        return [span for attempt in history if (span := attempt_span(attempt))]

    def spent(self, store: Store, devices: Devices, flops: Mapping[str, float]) -> Bill:
        """Return the cost of all attempts; ``flops`` are those of the steps of the sweep."""
        return sum(self._bills(store, devices, flops), Bill())

    def _bills(self, store: Store, devices: Devices, flops: Mapping[str, float]) -> Iterator[Bill]:
        for step, known in self.finished.items():
            if known.attempts:
                whole = known.declared_flops or flops.get(step) or flops_recorded(store, step)
                yield known.bill(whole, devices)
        for step, each in self.others.items():
            if each.history:
                whole = declared_flops(each.result) or flops.get(step) or flops_recorded(store, step)
                yield from attempt_bills(whole, each.history, devices)


def read_steps(store: Store, expected: int = 0) -> StoreReading:
    """Read every step of a store that holds about ``expected`` of them."""
    listing, others = Listing(store, expected), dict[str, OpenStep]()

    def read(steps: list[str]) -> dict[str, Value]:
        found, faults = listing.contents(steps), dict[str, str]()
        results = store.results(steps, faults, found)
        histories = attempts_all(store, {step: attempt_names(names) for step, names in found.items()})
        finished = {}
        for step, names in found.items():
            history, result = histories.get(step, []), results.get(step)
            if result is not None and _is_over(history):
                finished[step] = FinishedStep.of(result, history)
            else:
                others[step] = OpenStep(names, history, result, faults.get(step, ""))
        return finished

    known = read_through_cache(store, "steps", listing, read)
    return StoreReading({step: FinishedStep(*value) for step, value in known.items()}, others)


def read_through_cache(
    store: Store, kind: str, listing: Listing, read: Callable[[list[str]], dict[str, Value]]
) -> dict[str, Value]:
    """Return values of the finished steps of a store, reading only those that have changed since.

    Args:
        store: the store.
        kind: name of the values, of which a store has one cache each.
        listing: the steps now, listed before they are read.
        read: returns the values for JSON of the finished ones among some steps.
    """
    cache = ReadingCache(store, kind)
    known = cache.steps()
    found = {step: value for step, (stamp, value) in known.items() if listing.stamps.get(step) == stamp}
    left = [step for step in listing.steps if step not in found]
    fresh: dict[str, Value] = {}
    for begin in range(0, len(left), BATCH):
        fresh |= read(left[begin : begin + BATCH])
    stamped = {step: (listing.stamps[step], value) for step, value in fresh.items() if step in listing.stamps}
    cache.update(stamped, gone=known.keys() - found.keys() - stamped.keys())
    return found | fresh


def _is_over(history: Sequence[Attempt]) -> bool:
    """Return True if no attempt can change the cost of a step that has a result."""
    return not history or (history[-1].ending is Ending.DONE and history[-1].settled)


def attempt_span(attempt: Attempt) -> AttemptSpan | None:
    """Return the time of an attempt; up to its last heartbeat, if it has no end."""
    told = attempt.told
    elapsed, well = float(told.get("elapsed", 0.0)), attempt.ending in (None, Ending.DONE)
    if "ended" in told:
        end = datetime.fromisoformat(str(told["ended"])).timestamp()
        return AttemptSpan(end - elapsed, end, well)
    if "started" in told:
        start = datetime.fromisoformat(str(told["started"])).timestamp()
        return AttemptSpan(start, start + elapsed, well)
    return None
