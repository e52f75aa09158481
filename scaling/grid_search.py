"""Minimise or invert many one-dimensional functions at once.

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


def minimise(
    objective: Callable[[Array], Array],
    low: Array,
    high: Array,
    *,
    first: int = FIRST_LATTICE,
    zoom: int = ZOOM_LATTICE,
    zooms: int = ZOOMS,
) -> Array:
    """The minimisers, shape (P, 1), of ``objective`` between ``low`` and ``high``, both of shape (P, 1).

    ``objective`` takes points of shape (P, K) and returns values of that shape; infeasible points are inf.
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
    """Where a falling ``function`` first is at most ``target``; inf where it is not even at ``high``.

    Everything has one shape, and all entries are bisected together.
    """
    reached = function(high) <= target
    upper = high
    for _ in range(steps):
        middle = 0.5 * (low + upper)
        enough = function(middle) <= target
        low, upper = np.where(enough, low, middle), np.where(enough, middle, upper)
    return np.where(reached, upper, np.inf)
