"""The figure of laws side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fits.checks.comparison.scores import CHECKS
from scaling.figures.accessor import Plots
from scaling.figures.chart import Axis, Chart, Panel, Series

if TYPE_CHECKING:
    from fits.checks.comparison.scores import Comparison
    from scaling.figures.figure import Figure

FITTED = "rms error, fitted"


class ComparisonPlots(Plots):
    """The figures of one comparison of laws."""

    main = "errors"
    result: Comparison

    def errors(self) -> Figure:
        """Draw every law's error on the fitted runs and on each held-out part, rms nats/token."""
        return self._draw(errors_chart(self.result))


def errors_chart(found: Comparison) -> Chart:
    """Return errors by law, a row each for the fitted runs and for every part that was held out."""
    criteria = {name: values for name, values in found.criteria().items() if name == FITTED or name in CHECKS}
    rows = np.arange(len(criteria), dtype=np.float64)
    series = tuple(
        Series(
            label=score.law,
            points=(np.array([values[score.law] for values in criteria.values()]), rows),
            kind=number,
        )
        for number, score in enumerate(found.scores, start=1)
    )
    names = tuple(name if name == FITTED else f"held out: {name}" for name in criteria)
    panel = Panel(
        x=Axis(label="error, rms (nats/token)", log=True), y=Axis(label="", names=names), series=series
    )
    return Chart(panels=(panel,), note=f"{found.runs} distillations; further left is better")
