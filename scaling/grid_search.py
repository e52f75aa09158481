"""Minimize or invert many one-dimensional functions at once.

Minima are found globally on a lattice and then by zooming in. No derivative, no start: the first lattice
sees every valley wider than its spacing, and every round keeps the two cells around the best point. All
problems advance together, one a row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FIRST_LATTICE = 64
ZOOM_LATTICE = 40
ZOOMS = 3
BISECTIONS = 40


def minimize_on_grid(
    objective: Callable[[Array], Array],
    low: Array,
    high: Array,
    *,
    first: int = FIRST_LATTICE,
    zoom: int = ZOOM_LATTICE,
    zooms: int = ZOOMS,
) -> Array:
    """Return the minimizers of ``objective`` between ``low`` and ``high``.

    Args:
        objective: Takes points of shape (P, K) and returns values of that shape; infeasible points are inf.
        low: Lower ends, shape (P, 1).
        high: Upper ends, shape (P, 1).
        first: Points of the first lattice.
        zoom: Points of each later one.
        zooms: How many times to zoom in.

    Returns:
        One minimizer a row, shape (P, 1).
    """
    points = first
    for _ in range(zooms + 1):
        step = (high - low) / (points - 1)
        lattice = low + step * np.arange(points)
        best = np.argmin(objective(lattice), axis=1, keepdims=True)
        middle = np.take_along_axis(lattice, best, axis=1)
        low, high = np.maximum(low, middle - step), np.minimum(high, middle + step)
        points = zoom
    return middle


def first_reaching(
    function: Callable[[Array], Array], target: float, low: Array, high: Array, *, steps: int = BISECTIONS
) -> Array:
    """Return the point at which a falling ``function`` reaches ``target``; inf where it does not by ``high``.

    All entries, of one shape, are bisected together.
    """
    reached = function(high) <= target
    upper = high
    for _ in range(steps):
        middle = 0.5 * (low + upper)
        enough = function(middle) <= target
        low, upper = np.where(enough, low, middle), np.where(enough, middle, upper)
    return np.where(reached, upper, np.inf)
