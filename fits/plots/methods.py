"""Chart of the multipliers of methods against a control."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scaling.figures.accessor import Plots
from scaling.figures.chart import Axis, Chart, Mark, Panel, Series

if TYPE_CHECKING:
    from fits.methods.compare import MethodComparison
    from scaling.figures.figure import Figure


class MethodPlots(Plots):
    """The figures of one comparison of methods."""

    main = "multipliers"
    result: MethodComparison

    def multipliers(self) -> Figure:
        """Draw the multipliers with their intervals, and the differences of loss that they come from."""
        return self._draw(methods_chart(self.result))


def methods_chart(found: MethodComparison) -> Chart:
    """Chart multipliers with their intervals, filled where they differ from 1, beside differences of pairs.

    The best method is first; methods without pairs are left out.
    """
    shown = [each for each in found.methods if each.pairs]
    differences = found.pairs["loss"] - found.pairs["control_loss"]
    multipliers, pairs = [], []
    for row, each in enumerate(shown):
        own = differences[found.pairs["method"] == each.method].to_numpy(np.float64)
        different = each.verdict in ("better", "worse")
        spans = (np.array([each.low]), np.array([each.high]))
        at = np.array([each.multiplier]), np.array([float(row)])
        multipliers.append(Series(points=at, spans=spans, kind=row + 1, hollow=not different))
        pairs.append(Series(points=(own, np.full(len(own), float(row))), kind=row + 1))
    names = tuple(each.method for each in shown)
    axis = Axis(label=f"multiplier of the {found.on} of {found.control}", log=True)
    difference = Axis(label=f"loss $-$ loss of {found.control} (nats/token)")
    return Chart(
        panels=(
            Panel(
                x=axis, y=Axis(label="", names=names), series=tuple(multipliers), marks=(Mark(at=1.0),)
            ),
            Panel(
                x=difference, y=Axis(label="", names=("",) * len(names)), series=tuple(pairs),
                marks=(Mark(at=0.0),),
            ),
        ),
        note="lines: 90 % intervals; filled: interval excludes 1; points on the right: pairs of runs",
    )  # fmt: skip
