"""Contents of a figure, as plain arrays and words; :mod:`scaling.figures.render` draws it.

Everything that computes a figure returns a :class:`Chart`, so it can be tested without pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
NOTHING: Array = np.empty(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One axis: what it shows, with its unit."""

    label: str
    log: bool = False
    limits: tuple[float, float] | None = None
    sizes: bool = False
    """True if values are written as people write sizes: 300M, 1.5B."""
    names: tuple[str, ...] = ()
    """Names of rows, where the axis counts rows: 0 is the first, at the top."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A line with its 90 % band, and points in the same color."""

    label: str = ""
    """Text in the legend; left out of it if empty."""
    x: Array = field(default_factory=lambda: NOTHING)
    y: Array = field(default_factory=lambda: NOTHING)
    low: Array | None = None
    high: Array | None = None
    known: Mask | None = None
    """True along the line where the fitted runs reach; it is drawn fainter elsewhere."""
    points: tuple[Array, Array] = (NOTHING, NOTHING)
    spans: tuple[Array, Array] | None = None
    """Ends of a horizontal interval of every point."""
    thick: float = 2.0
    """Width of the intervals, points of print; above 2 they are bars and stand without their points."""
    order: float | None = None
    """Place in an ordered family, from 0 to 1; it sets the color."""
    kind: int = 0
    """Number among unordered kinds, where there is no order; 0 is the color of text."""
    dash: Literal["-", "--", ":"] = "-"
    hollow: bool = False
    marker: int | None = None
    """Number of the marker of its points; by default its place in the panel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A quantity over a plane, for contours."""

    x: Array
    y: Array
    z: Array
    """(len(y), len(x)); nan where there is nothing."""
    levels: tuple[float, ...]
    label: str
    """Name of ``z``, with its unit."""
    sizes: bool = False
    diverging: bool = False
    """True if zero divides good from bad; it is then one of the levels."""
    known: Mask | None = None
    """True where the fitted runs reach, (len(y), len(x)); the rest is hatched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A thin line across the panel."""

    at: float
    across: Literal["x", "y"] = "x"
    """The axis on which ``at`` is a value."""
    label: str = ""
    kind: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Bars:
    """Stacked bars along the horizontal axis: shares of a whole, one bar a row."""

    labels: tuple[str, ...]
    """Names of the parts."""
    shares: Array
    """(rows, parts)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """Lines, fields and bars that share axes."""

    x: Axis
    y: Axis
    title: str = ""
    series: tuple[Series, ...] = ()
    field: Field | None = None
    bars: Bars | None = None
    marks: tuple[Mark, ...] = ()
    beyond: tuple[tuple[float, float], ...] = ()
    """Ranges of x beyond the fitted runs, shaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Panels, row by row."""

    panels: tuple[Panel, ...]
    title: str = ""
    columns: int = 3
    note: str = ""
    """Meaning of bands, dashes and shades; written below."""


def orders(count: int) -> list[float]:
    """Return the places of ``count`` members of an ordered family."""
    return list(np.linspace(0.0, 1.0, count)) if count > 1 else [0.4]
