"""Timeline of the attempts of a sweep, from its store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from scaling.errors import InputError
from scaling.figures.chart import Array, Axis, Chart, Panel, Series
from sweeps.dag.kind import kind_label
from sweeps.execute.steps.provenance import STEPS
from sweeps.store.store import Store
from sweeps.watch.gc_pause import without_gc
from sweeps.watch.step_readings import read_steps

HOUR, MINUTE = 3600.0, 60.0
MAX_LANES = 40
"""Largest number of rows of a figure; more overlap in the last."""
MAX_BARS = 3000
"""Largest number of attempts that have a bar each."""
MAX_POINTS = 300
"""Parts of the time in which more attempts are counted."""


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


@without_gc
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
    reading = read_steps(store, expected=len(recorded["steps"]))
    found = [
        (step["id"], step["kind"], *span) for step in recorded["steps"] for span in reading.spans(step["id"])
    ]
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


def assign_lanes(found: Sequence[Span]) -> list[int]:
    """Assign spans, ordered by start, to lanes without overlaps, with as few lanes as attempts at once."""
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    chosen, lanes = [], 0
    for stretch in found:
        while busy and busy[0][0] <= stretch.start + 1:
            heappush(free, heappop(busy)[1])
        if not free:
            free.append(lanes)
            lanes += 1
        lane = heappop(free)
        heappush(busy, (stretch.end, lane))
        chosen.append(lane)
    return chosen


def timeline_chart(found: Sequence[Span]) -> Chart:
    """Chart attempts over time, one row for each that runs at once; failed ones are highlighted.

    Of more than :data:`MAX_BARS` attempts it is the number at once, as bars could not be told apart.
    """
    length = max(stretch.end for stretch in found)
    unit, name = (HOUR, "hours") if length > 2 * HOUR else (MINUTE, "minutes")
    axis = Axis(label=f"{name} since the first step began")
    return (_bars if len(found) <= MAX_BARS else _counts)(found, unit, axis)


def _groups(found: Sequence[Span]) -> dict[str, list[int]]:
    """Return the places of attempts by the kind of their step, and of those that ended badly."""
    groups: dict[str, list[int]] = {kind_label(kind): [] for kind in sorted({each.kind for each in found})}
    groups["ended badly"] = []
    for place, each in enumerate(found):
        groups[kind_label(each.kind) if each.ended_well else "ended badly"].append(place)
    return groups


def _bars(found: Sequence[Span], unit: float, axis: Axis) -> Chart:
    """Chart a bar for each attempt."""
    rows = np.minimum(assign_lanes(found), MAX_LANES - 1)
    series = []
    for number, (label, members) in enumerate(_groups(found).items(), start=1):
        if members:
            start, end = np.array([(found[k].start, found[k].end) for k in members]).T / unit
            at = rows[members].astype(np.float64)
            series.append(Series(label=label, points=(start, at), spans=(start, end), kind=number, thick=8.0))
    lanes = Axis(label="", names=tuple(str(k + 1) for k in range(int(rows.max()) + 1)))
    panel = Panel(x=axis, y=lanes, series=tuple(series))
    return Chart(panels=(panel,), title=f"{len(found)} attempts, at most {int(rows.max()) + 1} at once")


def _counts(found: Sequence[Span], unit: float, axis: Axis) -> Chart:
    """Chart the mean number of attempts at once in each of equal parts of the time."""
    starts, ends = np.array([(each.start, each.end) for each in found]).T
    edges = np.linspace(0.0, float(ends.max()), MAX_POINTS + 1)
    series = []
    for number, (label, members) in enumerate(_groups(found).items(), start=1):
        if members:
            worked = _seconds_until(edges, ends[members], starts[members])
            middle, mean = (edges[1:] + edges[:-1]) / 2, np.diff(worked) / np.diff(edges)
            series.append(Series(label=label, x=middle / unit, y=mean, kind=number))
    panel = Panel(x=axis, y=Axis(label="attempts at once"), series=tuple(series))
    return Chart(
        panels=(panel,), title=f"{len(found):,} attempts, at most {max(assign_lanes(found)) + 1:,} at once"
    )


def _seconds_until(times: Array, ends: Array, starts: Array) -> Array:
    """Return the seconds that attempts have taken together until each of ``times``."""

    def since(begins: Array) -> Array:
        ordered = np.sort(begins)
        before = np.searchsorted(ordered, times)
        return before * times - np.concatenate([[0.0], np.cumsum(ordered)])[before]

    return since(starts) - since(ends)
