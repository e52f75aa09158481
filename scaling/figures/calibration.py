"""``calibration.plot``: the figures of a calibration, which :mod:`scaling.figures.registry` lists."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from scaling.figures import draw
from scaling.figures.accessor import Plots
from scaling.figures.registry import KINDS

if TYPE_CHECKING:
    from scaling.calibration.calibration import Calibration
    from scaling.figures.figure import Figure


class CalibrationPlots(Plots):
    """The figures of one calibration, each also a method: ``.capacity_gap(students=(1e9,))``."""

    main = "scenarios"
    result: Calibration

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the figures, as ``distlaw plot`` has them."""
        return list(KINDS)

    def __call__(self, name: str = "", *_: Any, dark: bool | None = None, **asked: Any) -> Figure:
        """Draw the figure of a name, the scenarios if none is given.

        Args:
            name: One of :meth:`names`.
            dark: For a dark page.
            asked: Fields of :class:`scaling.figures.registry.FigureOptions`: students, teachers, tokens,
                ratios, teacher_losses, budgets, scenarios, law.

        Raises:
            InputError: For an unknown name, or what the figure does not heed.
        """
        return draw(name or self.main, self.result, dark=self.dark if dark is None else dark, **asked)

    def __getattr__(self, name: str) -> Callable[..., Figure]:
        kind = name.replace("_", "-")
        if kind not in KINDS:
            raise AttributeError(f"no figure {name!r}; there are {', '.join(self.__dir__())}")
        return partial(self, kind)

    def __dir__(self) -> list[str]:
        return [name.replace("-", "_") for name in KINDS]
