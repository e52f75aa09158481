"""Timeline of the attempts of a sweep, from its store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from scaling.errors import InputError
from scaling.figures.chart import Axis, Chart, Panel, Series
from sweeps.dag.kind import kind_label
from sweeps.execute.provenance import STEPS
from sweeps.store.leases import attempts
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store

HOUR, MINUTE = 3600.0, 60.0
MAX_LANES = 40
"""Largest number of rows of a figure; more overlap in the last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Time span of one attempt, in seconds since the first began."""

    step: str
    kind: str
    """Kind of the step."""
    start: float
    end: float
    ended_well: bool
    """True if it is done, or still running."""


def attempt_spans(store: Store) -> list[Span]:
    """Return the attempts at the steps of the sweep last started in ``store``, ordered by start.

    Members of a cohort run together, and each has a span. An attempt without an end lasts until its last
    heartbeat.

    Raises:
        InputError: if there is no sweep, or no step has begun.
    """
    recorded = store.read(STEPS)
    if recorded is None:
        raise InputError(f"{store.root}: not a sweep store (no {STEPS} in it)")
    found = []
    for step in recorded["steps"]:
        for attempt in attempts(store, step["id"]):
            span = _span(attempt.told)
            if span:
                well = attempt.ending in (None, Ending.DONE)
                found.append((step["id"], step["kind"], *span, well))
    if not found:
        raise InputError(f"{store.root}: no step of this sweep has begun yet")
    first = min(start for _, _, start, _, _ in found)
    return sorted(
        (
            Span(step=step, kind=kind, start=start - first, end=end - first, ended_well=well)
            for step, kind, start, end, well in found
        ),
        key=lambda stretch: (stretch.start, stretch.end),
    )


def _span(told: dict[str, object]) -> tuple[float, float] | None:
    """Return start and end of an attempt, seconds since the epoch."""
    elapsed = float(str(told.get("elapsed", 0.0)))
    if "ended" in told:
        end = datetime.fromisoformat(str(told["ended"])).timestamp()
        return end - elapsed, end
    if "started" in told:
        start = datetime.fromisoformat(str(told["started"])).timestamp()
        return start, start + elapsed
    return None


def assign_lanes(found: Sequence[Span]) -> list[int]:
    """Assign every span to a lane without overlaps, with as few lanes as attempts at once."""
    free: list[float] = []
    chosen = []
    for stretch in found:
        lane = next((k for k, until in enumerate(free) if until <= stretch.start + 1), len(free))
        if lane == len(free):
            free.append(0.0)
        free[lane] = stretch.end
        chosen.append(lane)
    return chosen


def timeline_chart(found: Sequence[Span]) -> Chart:
    """Chart attempts over time, one row for each that runs at once; failed ones are highlighted."""
    length = max(stretch.end for stretch in found)
    unit, name = (HOUR, "hours") if length > 2 * HOUR else (MINUTE, "minutes")
    rows = np.minimum(assign_lanes(found), MAX_LANES - 1)
    kinds = sorted({stretch.kind for stretch in found})
    groups = {
        kind_label(kind): [k for k, each in enumerate(found) if each.kind == kind and each.ended_well]
        for kind in kinds
    }
    groups["ended badly"] = [k for k, each in enumerate(found) if not each.ended_well]
    series = []
    for number, (label, members) in enumerate(groups.items(), start=1):
        if members:
            start, end = np.array([(found[k].start, found[k].end) for k in members]).T / unit
            at = rows[members].astype(np.float64)
            series.append(Series(label=label, points=(start, at), spans=(start, end), kind=number, thick=8.0))
    panel = Panel(
        x=Axis(label=f"{name} since the first step began"),
        y=Axis(label="", names=tuple(str(k + 1) for k in range(int(rows.max()) + 1))),
        series=tuple(series),
    )
    return Chart(panels=(panel,), title=f"{len(found)} attempts, at most {int(rows.max()) + 1} at once")
