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


GOLDEN = 0.5 * (5**0.5 - 1)


def minimize_elementwise(
    objective: Callable[[Array], Array], low: Array, high: Array, *, first: int = 24, steps: int = 32
) -> Array:
    """Return the minimizers of many functions of one variable, each between its own ends.

    Args:
        objective: Takes an array of points, one for each function, and returns their values.
        low: Lower ends, of any shape.
        high: Upper ends, which broadcast against ``low``.
        first: Points of the lattice that finds the valley.
        steps: Golden-section steps, which leave 2e-7 of the lattice's spacing.
    """
    low, high = (np.asarray(end, dtype=np.float64) for end in np.broadcast_arrays(low, high))
    step = (high - low) / (first - 1)
    best, least = low, objective(low)
    for k in range(1, first):
        point = low + k * step
        value = objective(point)
        best, least = np.where(value < least, point, best), np.fmin(value, least)
    left, right = np.maximum(low, best - step), np.minimum(high, best + step)
    inner, outer = right - GOLDEN * (right - left), left + GOLDEN * (right - left)
    at_inner, at_outer = objective(inner), objective(outer)
    for _ in range(steps):
        lower = at_inner < at_outer
        left, right = np.where(lower, left, inner), np.where(lower, outer, right)
        point = np.where(lower, right - GOLDEN * (right - left), left + GOLDEN * (right - left))
        value = objective(point)
        inner, outer = np.where(lower, point, outer), np.where(lower, inner, point)
        at_inner, at_outer = np.where(lower, value, at_outer), np.where(lower, at_inner, value)
    middle = 0.5 * (left + right)
    return np.where(objective(middle) <= least, middle, best)


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
