"""Corner plot of the draws of a law's coefficients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import MaxNLocator

from scaling.figures.chart import Array
from scaling.figures.figure import Figure
from scaling.figures.style import of_kind, style

CELL = 1.5
"""Side of one panel in inches."""


GREEK = {"alpha", "beta", "gamma", "eta", "epsilon", "zeta", "kappa", "delta"}
SYMBOLS = {"eps": "\\epsilon"}


def label(name: str) -> str:
    """Return the label of a coefficient's logarithm, with its symbol."""
    base, _, below = name.partition("_")
    symbol = SYMBOLS.get(base, f"\\{base}" if base in GREEK else base)
    return f"$\\log_{{10}}\\,{symbol}{f'_{{{below}}}' if below else ''}$"


def ends(values: Array) -> tuple[float, float]:
    """Return limits that hold all values, with a margin."""
    margin = 0.05 * float(np.ptp(values))
    return float(values.min()) - margin, float(values.max()) + margin


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
                axis.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
                axis.yaxis.set_major_locator(MaxNLocator(3, prune="both"))
                if j > i:
                    axis.set_axis_off()
                elif j == i:
                    axis.hist(drawn[name], bins=24, color=of_kind(1), alpha=0.8)
                    axis.set_yticks([])
                else:
                    axis.plot(drawn[name], drawn[below], ".", markersize=2, color=of_kind(1), alpha=0.4)
                    axis.tick_params(labelleft=j == 0)
                    axis.set_ylim(*ends(drawn[below]))
                axis.set_xlim(*ends(drawn[name]))
                if i == len(names) - 1:
                    axis.set_xlabel(label(name), fontsize=8)
                if j == 0 and i > 0:
                    axis.set_ylabel(label(below), fontsize=8)
        figure.suptitle(title)
    return figure
