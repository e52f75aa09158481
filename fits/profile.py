"""Profile-likelihood intervals: how far a coordinate can move before the best fit around it is too bad."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.stats import chi2

from fits.estimate import Estimate
from fits.solver import Array, minimise
from scaling.errors import InputError

PINNED = 1e12
"""A precision that nails a coordinate down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """The profile of one coordinate."""

    name: str
    values: Array
    deviance: Array
    """Twice the rise of the objective, others refitted; chi-squared with one degree of freedom."""
    level: float
    low: float
    high: float
    """The interval; infinite on a side where the data and priors set no end within the bounds."""


def profile(found: Estimate, name: str, level: float = 0.9, points: int = 61, reach: float = 6.0) -> Profile:
    """The profile of the coordinate ``name`` (one of ``found.model.names``) over ``reach`` standard errors.

    Raises InputError for a name that was not fitted.
    """
    if name not in found.model.names:
        raise InputError(f"no coordinate {name!r} was fitted; there are {', '.join(found.model.names)}")
    i = found.model.names.index(name)
    best, error = found.theta[i], found.standard_errors[i]
    lower, upper = found.problem.lower[i], found.problem.upper[i]
    values = np.linspace(max(lower, best - reach * error), min(upper, best + reach * error), points)
    own = 0.5 * found.problem.precision[i] * (values - found.problem.centre[0, i]) ** 2
    precision = found.problem.precision.copy()
    precision[i] = PINNED
    centre = np.repeat(found.problem.centre, points, axis=0)
    centre[:, i] = values
    start = np.repeat(found.theta[None], points, axis=0)
    start[:, i] = values
    reached = minimise(replace(found.problem, precision=precision, centre=centre), start)
    deviance = 2 * (reached.objective + own - found.objective)
    low, high = _crossings(values, deviance, float(chi2.ppf(level, 1)))
    return Profile(name=name, values=values, deviance=deviance, level=level, low=low, high=high)


def _crossings(values: Array, deviance: Array, threshold: float) -> tuple[float, float]:
    """Where the deviance crosses the threshold on either side of its minimum."""
    best = int(np.argmin(deviance))

    def crossing(indices: range, end: float) -> float:
        for inner, outer in pairwise(indices):
            if deviance[outer] > threshold >= deviance[inner]:
                share = (threshold - deviance[inner]) / (deviance[outer] - deviance[inner])
                return float(values[inner] + share * (values[outer] - values[inner]))
        return end

    return crossing(range(best, -1, -1), -np.inf), crossing(range(best, len(values)), np.inf)
