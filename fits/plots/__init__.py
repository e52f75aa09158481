"""Figures of a fit: charts in :mod:`fits.plots.charts`, drawn by :mod:`scaling.figures.render`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fits.plots import charts
from fits.plots.corner import corner_figure
from scaling.errors import InputError
from scaling.figures.accessor import Plots
from scaling.figures.figure import Figure

if TYPE_CHECKING:
    from fits.estimation.profile_likelihood import Quantity
    from fits.fitting import Fit


class FitPlots(Plots):
    """The figures of one fit."""

    result: Fit

    def __init__(self, fit: Fit, dark: bool = False) -> None:
        super().__init__(fit, dark)
        self.main = "law" if fit.distillation else "predicted"

    def law(self, law: str | None = None) -> Figure:
        """Draw student loss over teacher loss by student size and tokens: the law, its band, the runs.

        Raises:
            InputError: for a law that was not fitted.
        """
        kind = law or self.result.default
        if kind is None or kind not in self.result.distillation:
            known = ", ".join(self.result.distillation) or "none, without distillations"
            raise InputError(f"no distillation law {kind!r} was fitted; fitted: {known}")
        return self._draw(charts.law_chart(self.result, kind))

    def isoflop(self) -> Figure:
        """Draw loss over parameters at fixed compute under the supervised law, with the runs."""
        return self._draw(charts.isoflop_chart(self.result))

    def predicted(self) -> Figure:
        """Draw predicted against observed losses, with the residuals."""
        return self._draw(charts.predicted_chart(self.result))

    def residuals(self) -> Figure:
        """Draw residuals in units of the noise: over the predicted loss, and as a normal Q-Q plot."""
        return self._draw(charts.residuals_chart(self.result))

    def profile(self, quantity: str | Quantity, level: float = 0.9, law: str | None = None) -> Figure:
        """Draw the profile likelihood of a coordinate or a function of both laws, with its interval."""
        name = quantity if isinstance(quantity, str) else "the quantity"
        return self._draw(charts.profile_chart(self.result.profile(quantity, level, law), name))

    def corner(self, law: str | None = None) -> Figure:
        """Draw pairwise scatter plots of the draws of a law's coefficients, or those of "supervised".

        Raises:
            InputError: for a law that was not fitted.
        """
        kind = law or self.result.default or "supervised"
        if kind not in self.result.draws:
            raise InputError(f"no law {kind!r} was fitted; fitted: {', '.join(self.result.draws)}")
        return corner_figure(charts.corner(self.result, kind), f"draws of the {kind} law", self.dark)

    def save(self, directory: str | Path) -> list[Path]:
        """Write every figure as PNG and SVG into ``directory``; return the files."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        figures = {"isoflop": self.isoflop(), "predicted": self.predicted(), "residuals": self.residuals()}
        figures |= {f"law-{kind}": self.law(kind) for kind in self.result.distillation}
        return [
            figure.write(directory / f"{name}.{suffix}")
            for name, figure in figures.items()
            for suffix in ("png", "svg")
        ]
