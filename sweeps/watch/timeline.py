"""When each attempt at a step ran, and how it ended: the timeline of a sweep, from its store alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from scaling.errors import InputError
from scaling.figures.chart import Axis, Chart, Panel, Series
from sweeps.execute.provenance import STEPS
from sweeps.store.leases import attempts
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store

HOUR, MINUTE = 3600.0, 60.0
LANES = 40
"""Rows that a figure can show; more overlap in the last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """One attempt: seconds since the first began."""

    step: str
    kind: str
    """Of step."""
    start: float
    end: float
    ended_well: bool
    """Whether it is done, or still runs."""


def stretches(store: Store) -> list[Stretch]:
    """All attempts at the steps of the sweep last started in ``store``, by their beginning.

    Attempts at a cohort's members run together, and each counts. One that could not say how it ended, lasts
    as long as it was heard of.

    Raises:
        InputError: if there is no sweep, or nothing of it has begun.
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
            Stretch(step=step, kind=kind, start=start - first, end=end - first, ended_well=well)
            for step, kind, start, end, well in found
        ),
        key=lambda stretch: (stretch.start, stretch.end),
    )


def _span(told: dict[str, object]) -> tuple[float, float] | None:
    """When an attempt began and ended, seconds since the epoch."""
    elapsed = float(str(told.get("elapsed", 0.0)))
    if "ended" in told:
        end = datetime.fromisoformat(str(told["ended"])).timestamp()
        return end - elapsed, end
    if "started" in told:
        start = datetime.fromisoformat(str(told["started"])).timestamp()
        return start, start + elapsed
    return None


def lanes(found: Sequence[Stretch]) -> list[int]:
    """A lane for every stretch so that none overlap within it: as few as run at once."""
    free: list[float] = []
    chosen = []
    for stretch in found:
        lane = next((k for k, until in enumerate(free) if until <= stretch.start + 1), len(free))
        if lane == len(free):
            free.append(0.0)
        free[lane] = stretch.end
        chosen.append(lane)
    return chosen


def timeline_chart(found: Sequence[Stretch]) -> Chart:
    """Bars of attempts over time, a row for each that runs at once; those that ended badly stand out."""
    length = max(stretch.end for stretch in found)
    unit, name = (HOUR, "hours") if length > 2 * HOUR else (MINUTE, "minutes")
    rows = np.minimum(lanes(found), LANES - 1)
    kinds = sorted({stretch.kind for stretch in found})
    groups = {
        kind: [k for k, each in enumerate(found) if each.kind == kind and each.ended_well] for kind in kinds
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
