"""``result.plot``: the figures of a result, by one convention for every kind of result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from scaling.errors import InputError
from scaling.figures.chart import Chart

if TYPE_CHECKING:
    from scaling.figures.figure import Figure


class Plots:
    """Figures of a result: each method draws one, and a call draws the main one.

    ``result.plot()`` is the main figure, ``result.plot.NAME()`` and ``result.plot("NAME")`` any other,
    ``result.plot.on_dark.NAME()`` the same for a dark page. All are Matplotlib figures with units on their
    axes: a notebook shows them, ``.write("figure.svg")`` saves them.
    """

    main: str
    """Name of the figure that a call draws."""
    result: Any
    """Object that is drawn; subclasses narrow its type."""

    def __init__(self, result: Any, dark: bool = False) -> None:
        self.result, self.dark = result, dark

    @property
    def on_dark(self) -> Self:
        """Return these figures for a dark page."""
        return type(self)(self.result, dark=True)

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the figures."""
        shared = {*dir(Plots), "main", "result", "save"}
        return [name for name in dir(cls) if not name.startswith("_") and name not in shared]

    def __call__(self, name: str = "", *arguments: Any, dark: bool | None = None, **settings: Any) -> Figure:
        """Draw the figure of a name, the main one if none is given.

        Args:
            name: One of :meth:`names`.
            arguments: What the method of that name takes.
            dark: For a dark page.
            settings: What the method of that name takes, by name.

        Raises:
            InputError: If there is no figure of that name.
        """
        if name and name not in self.names():
            raise InputError(f"no figure {name!r}; there are {', '.join(self.names())}")
        plots = self if dark is None else type(self)(self.result, dark)
        figure: Figure = getattr(plots, name or self.main)(*arguments, **settings)
        return figure

    def _draw(self, chart: Chart) -> Figure:
        from scaling.figures.render import draw

        return draw(chart, self.dark)
