"""The figure of methods beside a control."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scaling.figures.chart import Axis, Chart, Mark, Panel, Series

if TYPE_CHECKING:
    from fits.methods.compare import MethodComparison


def methods_chart(found: MethodComparison) -> Chart:
    """Multipliers with their intervals, filled where they differ from 1; every pair's difference beside.

    The best first; methods without pairs are left out.
    """
    shown = [worth for worth in found.methods if worth.pairs]
    differences = found.pairs["loss"] - found.pairs["control_loss"]
    worths, pairs = [], []
    for row, worth in enumerate(shown):
        own = differences[found.pairs["method"] == worth.method].to_numpy(np.float64)
        different = worth.verdict in ("better", "worse")
        spans = (np.array([worth.low]), np.array([worth.high]))
        at = np.array([worth.multiplier]), np.array([float(row)])
        worths.append(Series(points=at, spans=spans, kind=row + 1, hollow=not different))
        pairs.append(Series(points=(own, np.full(len(own), float(row))), kind=row + 1))
    names = tuple(worth.method for worth in shown)
    multiplier = Axis(label=f"worth, times the {found.on} of {found.control}", log=True)
    difference = Axis(label=f"loss $-$ that of {found.control} (nats/token)")
    return Chart(
        panels=(
            Panel(
                x=multiplier, y=Axis(label="", names=names), series=tuple(worths), marks=(Mark(at=1.0),)
            ),
            Panel(
                x=difference, y=Axis(label="", names=("",) * len(names)), series=tuple(pairs),
                marks=(Mark(at=0.0),),
            ),
        ),
        note="lines: 95 % intervals; filled: they leave out 1; points on the right: pairs of runs",
    )  # fmt: skip
