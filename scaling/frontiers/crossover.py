"""Crossovers over a range of budgets: where one of two ways overtakes the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling.planner.plan import CONFIDENT, Estimate, Interval
from scaling.planner.uncertainty import interval
from scaling.units import format_power

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """The last budget of a range at which a gain falls through zero."""

    at: Estimate | None
    """FLOPs, with 90 % of the draws that cross; ``None`` if it happens nowhere in the range."""
    by_law: Mapping[str, float | None]
    """FLOPs under every law of the calibration, for these decisions."""
    share: float | None
    """Share of the draws in which it happens within the range."""

    def text(self, kind: str) -> str:
        """Return the crossover in words: budget, band, share of the draws, and crossovers of other laws."""
        if self.at is None:
            return "no budget"
        said = _band(self.at)
        if self.share is not None and self.share < CONFIDENT:
            said += f", in {self.share:.0%} of the draws"
        for law, at in self.by_law.items():
            if law != kind:
                said += f" (under {law}: {'nowhere' if at is None else format_power(at, 2)})"
        return said


def crossing(costs: Array, gains: Mapping[str, Array], kind: str, drawn: Array | None) -> Crossing:
    """Return where the gain of law ``kind`` last falls through zero.

    ``gains`` has shape (budgets,) by law, and ``drawn``, of law ``kind``, (draws, budgets).
    """
    points = {law: float(falls(costs, gain[None])[0]) for law, gain in gains.items()}
    by_law = {law: None if np.isnan(point) else point for law, point in points.items()}
    at = None if np.isnan(points[kind]) else Estimate(points[kind])
    if drawn is None:
        return Crossing(at=at, by_law=by_law, share=None)
    crossed = falls(costs, drawn)
    crossed = crossed[np.isfinite(crossed)]
    if at is not None and len(crossed):
        at = Estimate(at.value, *interval(crossed))
    return Crossing(at=at, by_law=by_law, share=len(crossed) / len(drawn))


def falls(costs: Array, gains: Array) -> Array:
    """Return where each row of gains (draws, budgets) last falls through zero, interpolated, or nan."""
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = gains[:, :-1] / (gains[:, :-1] - gains[:, 1:])
    through = (gains[:, :-1] > 0) & (gains[:, 1:] <= 0)
    last = through.shape[1] - 1 - np.argmax(through[:, ::-1], axis=1)
    row = np.arange(len(gains))
    ln_C = np.log(costs)
    crosses = through.any(axis=1)
    part = np.where(crosses, weight[row, last], 0.0)
    return np.where(crosses, np.exp(ln_C[last] + part * (ln_C[last + 1] - ln_C[last])), np.nan)


def spans(costs: Array, holds: NDArray[np.bool_]) -> tuple[Interval, ...]:
    """Return the first and last cost of every range in which ``holds`` is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], holds, [False]]).astype(int)))
    return tuple(
        (float(costs[start]), float(costs[stop - 1]))
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    )


def spans_text(found: tuple[Interval, ...]) -> str:
    """Return ranges of FLOPs in words."""
    ends = ((format_power(low, 2), format_power(high, 2)) for low, high in found)
    texts = (low if low == high else f"{low} to {high}" for low, high in ends)
    return f"{' and '.join(texts)} FLOPs"


def _band(at: Estimate) -> str:
    ends = [format_power(end, 2) for end in (at.low, at.high) if end is not None]
    band = f" [{', '.join(ends)}]" if ends else ""
    return f"{format_power(at.value, 2)}{band} FLOPs"
