"""The figure of methods beside a control: data first, then drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from fits.plots.data import Array
from fits.plots.draw import MARKERS, OKABE_ITO
from fits.plots.figure import Figure

if TYPE_CHECKING:
    from fits.methods import MethodComparison


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A method's multiplier with its interval, and the differences of loss of its pairs, nats/token."""

    method: str
    multiplier: float
    low: float
    high: float
    different: bool
    differences: Array


def worth_bars(found: MethodComparison) -> tuple[Bar, ...]:
    """The methods that were compared, the best first."""
    pairs = found.pairs.assign(difference=found.pairs["loss"] - found.pairs["control_loss"])
    return tuple(
        Bar(
            method=worth.method,
            multiplier=worth.multiplier,
            low=worth.low,
            high=worth.high,
            different=worth.verdict in ("better", "worse"),
            differences=pairs.loc[pairs["method"] == worth.method, "difference"].to_numpy(np.float64),
        )
        for worth in found.methods
        if worth.pairs
    )


def methods_figure(bars: Sequence[Bar], on: str, control: str) -> Figure:
    """Multipliers on a logarithmic axis, filled where they differ from 1; every pair's difference beside."""
    figure = Figure(figsize=(8.8, 1.4 + 0.42 * len(bars)), layout="constrained")
    worth, apart = figure.subplots(1, 2, sharey=True)
    for i, bar in enumerate(bars):
        colour = OKABE_ITO[i % len(OKABE_ITO)]
        if np.isfinite(bar.low):
            worth.plot([bar.low, bar.high], [i, i], color=colour, linewidth=2)
        face = colour if bar.different else "white"
        marker = MARKERS[i % len(MARKERS)]
        worth.plot(bar.multiplier, i, marker=marker, color=colour, markerfacecolor=face, markersize=7)
        level = np.full(len(bar.differences), float(i))
        apart.plot(
            bar.differences, level, marker=marker, color=colour, linestyle="none", markersize=4, alpha=0.6
        )
    worth.axvline(1.0, color="0.5", linewidth=1, zorder=0)
    apart.axvline(0.0, color="0.5", linewidth=1, zorder=0)
    worth.set(xscale="log", ylim=(len(bars) - 0.5, -0.5), xlabel=f"worth, times the {on} of {control} (95 %)")
    worth.minorticks_off()
    worth.xaxis.set_major_locator(MaxNLocator(6))
    worth.xaxis.set_major_formatter("{x:g}")
    worth.set_yticks(range(len(bars)), [bar.method for bar in bars])
    apart.set_xlabel(f"loss $-$ that of {control} (nats/token)")
    return figure
