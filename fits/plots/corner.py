"""Corner plot of the draws of a law's coefficients."""

from __future__ import annotations

from collections.abc import Mapping

from scaling.figures.chart import Array
from scaling.figures.figure import Figure
from scaling.figures.style import of_kind, style

CELL = 1.5
"""Side of one panel in inches."""


def corner_figure(drawn: Mapping[str, Array], title: str, dark: bool = False) -> Figure:
    """Draw every pair of coefficients, with histograms on the diagonal; logarithms to base 10."""
    names, side = list(drawn), CELL * len(drawn) + 1
    with style(dark):
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.subplots(len(names), len(names), squeeze=False, sharex="col")
        for i, below in enumerate(names):
            for j, name in enumerate(names):
                axis = axes[i, j]
                axis.tick_params(labelsize=6)
                axis.locator_params(nbins=4)
                if j > i:
                    axis.set_axis_off()
                elif j == i:
                    axis.hist(drawn[name], bins=24, color=of_kind(1), alpha=0.8)
                    axis.set_yticks([])
                else:
                    axis.plot(drawn[name], drawn[below], ".", markersize=2, color=of_kind(1), alpha=0.4)
                if i == len(names) - 1:
                    axis.set_xlabel(f"$\\log_{{10}}$ {name}", fontsize=8)
                if j == 0 and i > 0:
                    axis.set_ylabel(f"$\\log_{{10}}$ {below}", fontsize=8)
        figure.suptitle(title)
    return figure
