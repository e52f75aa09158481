"""Status of a sweep, read from its store, from any process or machine that reaches it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from scaling.errors import InputError
from sweeps.estimate.bill import Bill
from sweeps.execute.drivers.drivers import active_drivers, wall_seconds
from sweeps.execute.steps.provenance import STEPS
from sweeps.spec.resources import Caps, Devices
from sweeps.store.leases import CANCEL, LEASE_TIMEOUT, Attempt, attempt_path
from sweeps.store.processes import has_exited, is_on_this_machine
from sweeps.store.store import Store
from sweeps.watch.gc_pause import without_gc
from sweeps.watch.step_readings import OpenStep, StoreReading, read_steps

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.watch.plots import StatusPlots

STATES = ("done", "running", "ready", "waiting", "blocked", "failed")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepStatus:
    """Status of one step."""

    id: str
    kind: str
    label: str
    needs: tuple[str, ...]
    flops: float
    state: str
    """One of :data:`STATES`: ready to start, waiting for dependencies, or blocked by failed ones."""
    reason: str = ""
    """Reason of a failure, in one line."""
    damaged: bool = False
    """True if its result is damaged and has to be repaired or deleted."""
    attempts: int = 0
    beat: dict[str, Any] = field(default_factory=dict)
    """Last heartbeat of a running step, with its progress."""
    host: str = ""
    """Host that runs it."""

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds left at the pace so far; None if unknown."""
        done, steps, took = (self.beat.get(name, 0) for name in ("steps_done", "steps", "seconds"))
        trained = done - self.beat.get("first", 0)
        return took / trained * (steps - done) if took and trained else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """Status of a sweep, with text, table, dictionary and figures."""

    name: str
    store: str
    """A path or URL."""
    steps: tuple[StepStatus, ...]
    drivers: tuple[dict[str, Any], ...]
    """Records of its active drivers."""
    spent: Bill
    """Cost of all attempts in the store, of any sweep."""
    hours: float
    """Wall-clock hours of all drivers so far."""
    caps: Caps
    cancelled: bool

    def of(self, state: str) -> list[StepStatus]:
        """Return the steps in one of :data:`STATES`."""
        return [step for step in self.steps if step.state == state]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a step, as a pandas table."""
        import pandas as pd

        names = ("id", "kind", "label", "state", "reason", "attempts", "flops", "host")
        return pd.DataFrame([{name: getattr(step, name) for name in names} for step in self.steps])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {**asdict(self), "caps": self.caps.model_dump(), "seconds_left": self.seconds_left}

    @property
    def plot(self) -> StatusPlots:
        """The figures of this sweep: :class:`sweeps.watch.plots.StatusPlots` lists them."""
        from sweeps.watch.plots import StatusPlots

        return StatusPlots(self)

    def __str__(self) -> str:
        from sweeps.watch.status_text import status_text

        return status_text(self)

    __repr__ = __str__

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end, as the driver that knows best estimates them."""
        left = [driver["seconds_left"] for driver in self.drivers if "seconds_left" in driver]
        return min(left, default=None)


@without_gc
def status(store: Store) -> Status:
    """Return where the sweep last started in ``store`` stands.

    Raises:
        InputError: if there is no sweep, or what describes it is damaged.
    """
    sweep, recorded = store.read("sweep.json"), store.read(STEPS)
    if not sweep or not recorded:
        raise store.no_sweep()
    try:
        caps, devices = Caps(**sweep["caps"]), Devices(**sweep["spec"]["hardware"])
        name = sweep["spec"]["name"]
    except (KeyError, TypeError, ValidationError) as error:
        raise InputError(
            f"{store.root}/sweep.json: not a spec of this version ({_first_line(error)}); run the "
            "sweep again to rewrite it"
        ) from None
    reading = read_steps(store, expected=len(recorded["steps"]))
    found: dict[str, StepStatus] = {}
    for step in recorded["steps"]:
        needs = [found[need].state for need in step["needs"] if need in found]
        found[step["id"]] = _described(store, step, reading, needs)
    return Status(
        name=name,
        store=store.root,
        steps=tuple(found.values()),
        drivers=tuple(active_drivers(store)),
        spent=reading.spent(store, devices, {each["id"]: each["flops"] for each in recorded["steps"]}),
        hours=wall_seconds(store) / 3600,
        caps=caps,
        cancelled=store.read(CANCEL) is not None,
    )


def _described(store: Store, step: dict[str, Any], reading: StoreReading, needs: list[str]) -> StepStatus:
    """Return the status of a step; ``needs`` are the states of the steps that it needs."""
    told: dict[str, Any] = {}
    if known := reading.finished.get(step["id"]):
        each, (state, reason), begun = None, ("done", ""), known.attempts
    else:
        each = reading.others.get(step["id"], OpenStep(set(), []))
        (state, reason), begun = _state(store, step["id"], each, needs), len(each.history)
        if state == "running":
            first = min(attempt.told.get("began", 0) for attempt in each.history)
            told = {**each.history[-1].told, "first": first}
    return StepStatus(
        id=step["id"],
        kind=step["kind"],
        label=step["label"],
        flops=step["flops"],
        needs=tuple(step["needs"]),
        state=state,
        reason=reason,
        damaged=bool(each and each.fault),
        attempts=begun,
        beat=told,
        host=told.get("host", ""),
    )


def _state(store: Store, step: str, told: OpenStep, needs: list[str]) -> tuple[str, str]:
    """Return the state of a step that is not finished, with the reason if it failed."""
    if told.result is not None:
        return "done", ""
    if told.fault:
        return "failed", told.fault
    if told.history and not told.history[-1].ending and _alive(store, step, told.history[-1]):
        return "running", ""
    if f"attempts/{CANCEL}" in told.names:
        return "failed", "it was cancelled"
    if "failure.json" in told.names:
        failure = store.read(step, "failure.json") or {}
        if not failure.get("pardoned"):
            return "failed", failure.get("reason", "")
    if any(state in ("failed", "blocked") for state in needs):
        return "blocked", ""
    return ("ready" if all(state == "done" for state in needs) else "waiting"), ""


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _alive(store: Store, step: str, attempt: Attempt) -> bool:
    """Return True if an attempt is alive, by its process on this machine or the age of its heartbeat."""
    if has_exited(attempt.told):
        return False
    here = is_on_this_machine(attempt.told)
    part = "beat" if "beat" in attempt.told else ""
    return here or store.age(*attempt_path(step, attempt.number, part)) < attempt.told.get(
        "patience", LEASE_TIMEOUT
    )
