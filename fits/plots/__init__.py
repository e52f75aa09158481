"""Figures of a fit: data in :mod:`fits.plots.data`, drawing in :mod:`fits.plots.draw`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fits.plots import data, draw
from fits.plots.figure import Figure
from scaling.errors import InputError

if TYPE_CHECKING:
    from fits.fitting import Fit
    from fits.profile import Quantity


class Plots:
    """The figures of one fit. Each method returns a Matplotlib figure with units on its axes."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit

    def law(self, law: str | None = None) -> Figure:
        """Student loss over teacher loss, per student size and tokens: the law, its band, the runs."""
        kind = law or self.fit.default
        if kind is None or kind not in self.fit.distillation:
            known = ", ".join(self.fit.distillation) or "none, without distillations"
            raise InputError(f"no distillation law {kind!r} was fitted; there are {known}")
        return draw.law_figure(data.law_panels(self.fit, kind), f"{kind} law")

    def isoflop(self) -> Figure:
        """Loss over parameters at fixed compute under the supervised law, with the runs."""
        return draw.isoflop_figure(data.isoflop_curves(self.fit))

    def predicted(self) -> Figure:
        """Predicted against observed losses, with the residuals."""
        return draw.predicted_figure(data.predictions(self.fit))

    def residuals(self) -> Figure:
        """Residuals in units of the noise: over the predicted loss, and against a normal distribution."""
        return draw.residuals_figure(data.residuals(self.fit))

    def profile(self, quantity: str | Quantity, level: float = 0.9, law: str | None = None) -> Figure:
        """The profile likelihood of a fitted coordinate or of a function of both laws, with its interval."""
        name = quantity if isinstance(quantity, str) else "the quantity"
        return draw.profile_figure(self.fit.profile(quantity, level, law), name)

    def corner(self, law: str | None = None) -> Figure:
        """The draws of a law's coefficients, pair by pair; "supervised" for those of the supervised law."""
        kind = law or self.fit.default or "supervised"
        if kind not in self.fit.draws:
            raise InputError(f"no law {kind!r} was fitted; there are {', '.join(self.fit.draws)}")
        return draw.corner_figure(data.corner(self.fit, kind), f"draws of the {kind} law")

    def save(self, directory: str | Path) -> list[Path]:
        """Write every figure as PNG and SVG into ``directory``; returns the files."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        figures = {"isoflop": self.isoflop(), "predicted": self.predicted(), "residuals": self.residuals()}
        figures |= {f"law-{kind}": self.law(kind) for kind in self.fit.distillation}
        written = [directory / f"{name}.{suffix}" for name in figures for suffix in ("png", "svg")]
        for path in written:
            figures[path.stem].savefig(path, dpi=160)
        return written
