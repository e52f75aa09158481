"""Figures of a fit: data in :mod:`fits.plots.data`, drawing in :mod:`fits.plots.draw`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fits.plots import data, draw
from fits.plots.figure import Figure

if TYPE_CHECKING:
    from fits.fitting import Fit


class Plots:
    """The figures of one fit. Each method returns a Matplotlib figure with units on its axes."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit

    def law(self, law: str | None = None) -> Figure:
        """Student loss over teacher loss, per student size and tokens: the law, its band, the runs."""
        panels = data.law_panels(self.fit, law)
        if not panels:
            raise ValueError("the fit has no distillations to show")
        return draw.law_figure(panels, f"{law or self.fit.default} law")

    def isoflop(self) -> Figure:
        """Loss over parameters at fixed compute under the supervised law, with the runs."""
        return draw.isoflop_figure(data.isoflop_curves(self.fit))

    def predicted(self) -> Figure:
        """Predicted against observed losses, with the residuals."""
        return draw.predicted_figure(data.predictions(self.fit))

    def save(self, directory: str | Path) -> list[Path]:
        """Write every figure as PNG and SVG into ``directory``; returns the files."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        figures = {"isoflop": self.isoflop(), "predicted": self.predicted()}
        figures |= {f"law-{kind}": self.law(kind) for kind in self.fit.distillation}
        written = [directory / f"{name}.{suffix}" for name in figures for suffix in ("png", "svg")]
        for path in written:
            figures[path.stem].savefig(path, dpi=160)
        return written
