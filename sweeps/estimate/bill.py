"""Cost of attempts at steps: FLOPs, GPU-hours and dollars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from scaling.errors import InputError
from sweeps.dag.expand import SCHEMA, Step
from sweeps.spec.resources import Devices, Resources
from sweeps.store.leases import Attempt
from sweeps.store.store import Store

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Bill:
    """Cost of work, done or planned."""

    flops: float = 0.0
    gpu_hours: float = 0.0
    dollars: float = 0.0

    def __add__(self, other: Bill) -> Bill:
        return Bill(self.flops + other.flops, self.gpu_hours + other.gpu_hours, self.dollars + other.dollars)

    def at_least(self, other: Bill) -> Bill:
        """Return the larger of both for each field."""
        return Bill(*(max(getattr(self, each.name), getattr(other, each.name)) for each in fields(self)))

    @classmethod
    def of(cls, flops: float, seconds: float, resources: Resources, devices: Devices) -> Bill:
        """Return the cost of a number of FLOPs and seconds on ``resources``; dollars if a price is known."""
        gpus = seconds * resources.gpus * resources.nodes / HOUR
        cores = seconds * resources.cpus * resources.nodes / HOUR
        return cls(flops, gpus, (devices.price or 0.0) * (gpus or cores))


def attempt_bills(flops: float, history: Sequence[Attempt], devices: Devices) -> list[Bill]:
    """Return the cost of each attempt at a step of ``flops`` FLOPs so far, at most, from its reports.

    An attempt without a reported end may have run until its next report was due.
    """
    first = min((each.told["began"] for each in history if "began" in each.told), default=0)
    found = []
    for attempt in history:
        told = attempt.told
        end = told.get("steps", 1)
        began = told.get("began", attempt.done)
        done = attempt.done - began
        if attempt.unheard and (heard := told.get("elapsed")):
            done = min(done * (1 + attempt.unheard / heard), max(done, end - began))
        spent = flops * done / max(1, end - first)
        found.append(
            Bill.of(spent, attempt.seconds / told.get("members", 1), reported_resources(attempt), devices)
        )
    return found


def reported_resources(attempt: Attempt) -> Resources:
    """Return the resources that an attempt reported."""
    told = attempt.told
    return Resources(**{name: told[name] for name in ("cpus", "gpus", "nodes") if name in told})


def declared_flops(result: Mapping[str, Any] | None) -> float | None:
    """Return the FLOPs that the command of a run has declared; None if it has not."""
    found = (result or {}).get("flops", {}).get("declared")
    return None if found is None else float(found)


def flops_recorded(store: Store, step: str) -> float:
    """Return the FLOPs of a step from its record in the store, or from its result if of another version.

    Raises:
        InputError: if the record is damaged, as its cost would be lost; or if a part of the method of a step
            without a result cannot be imported here.
    """
    record, result = store.read(step, "step.json"), store.result(step) or {}
    known = float(result.get("flops", {}).get("total", 0.0))
    if declared := declared_flops(result):
        return declared
    if record is None or record.get("schema", 0) != SCHEMA:
        return known
    try:
        recorded = Step.from_json(record)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(store, step, error) from None
    try:
        return recorded.flops_to_spend
    except InputError as error:  # a part of its method cannot be imported here
        if known:
            return known
        raise InputError(f"{store.root}/{step}/step.json: its cost cannot be counted ({error})") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(store, step, error) from None


def _damaged(store: Store, step: str, error: Exception) -> InputError:
    why = str(error).splitlines()[0]
    return InputError(f"{store.root}/{step}/step.json: damaged ({why}); delete it")
