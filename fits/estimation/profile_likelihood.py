"""Profile-likelihood intervals of fitted coordinates and of functions of the laws.

The quantity may be a fitted coordinate or any smooth function of the laws: a coefficient, a predicted loss,
the best size for a budget. It is constrained to each value by an extra row with almost no noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from fits.estimation.estimate import Estimate
from fits.estimation.levenberg_marquardt import Array, minimize
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw, DistillationLaw

Quantity = Callable[[AnySupervisedLaw, DistillationLaw | None], Array]
"""Laws with coefficients of shape (b, 1) -> (b, 1) or (b,)."""
CONSTRAINT_WIDTH = 1e-3
"""Width of the constraint, in units of the standard error of the quantity."""
DIFFERENCE_STEP = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Profile likelihood of one quantity."""

    best: float
    error: float
    """Standard error from the curvature (the delta method)."""
    values: Array
    deviance: Array
    """Twice the rise of the objective after refitting all else: chi-squared with one degree of freedom. NaN
    for a value that the bounds of the coordinates do not allow."""
    level: float
    low: float
    high: float
    """End of the interval; infinite where it does not close within the bounds and the values tried."""


def profile(
    found: Estimate, quantity: str | Quantity, level: float = 0.9, points: int = 41, reach: float = 5.0
) -> Profile:
    """Compute the profile of a quantity over ``reach`` standard errors on either side.

    Args:
        found: The estimate.
        quantity: One of ``found.model.names`` or a function of the two laws, for example
            ``lambda supervised, distilled: supervised.loss(1e10, 2e11)``.
        level: Confidence level of the interval.
        points: Number of values.
        reach: Range of the values, in standard errors.

    Raises:
        InputError: for a name that was not fitted.
    """
    quantity_at = _quantity_with_slope(found, quantity)
    value, slope = quantity_at(found.theta[None])
    covariance = np.linalg.pinv(found.information, hermitian=True)
    best, error = float(value[0]), float(np.sqrt(slope[0] @ covariance @ slope[0]))
    values = np.linspace(best - reach * error, best + reach * error, points)
    problem = found.problem

    def evaluate(theta: Array, members: NDArray[np.intp]) -> tuple[Array, Array]:
        predicted, jacobian = problem.evaluate(theta, members)
        value, slope = quantity_at(theta)
        return np.append(predicted, value[:, None], axis=1), np.append(jacobian, slope[:, :, None], axis=2)

    held = replace(
        problem,
        evaluate=evaluate,
        observed=np.append(np.repeat(problem.observed, points, axis=0), values[:, None], axis=1),
        weight=np.append(problem.weight, [[(CONSTRAINT_WIDTH * error) ** -2]], axis=1),
        delta=np.append(problem.delta, np.inf),
    )
    start = found.theta + np.outer((values - best) / error**2, covariance @ slope[0])
    reached = minimize(held, start)
    missed = np.abs(quantity_at(reached.theta)[0] - values) > 0.05 * error  # a bound prevents this value
    deviance = np.where(missed, np.nan, 2 * (reached.objective - found.objective))
    low, high = _interval(values, deviance, float(chi2.ppf(level, 1)))
    return Profile(best=best, error=error, values=values, deviance=deviance, level=level, low=low, high=high)


def _quantity_with_slope(found: Estimate, quantity: str | Quantity) -> Callable[[Array], tuple[Array, Array]]:
    """Return a function from coordinates (b, p) to the quantity (b,) and its slope (b, p)."""
    names = found.model.names
    if isinstance(quantity, str):
        if quantity not in names:
            raise InputError(f"no coordinate {quantity!r} was fitted; fitted: {', '.join(names)}")
        i = names.index(quantity)
        return lambda theta: (theta[:, i], np.tile(np.eye(len(names))[i], (len(theta), 1)))

    def at(theta: Array) -> Array:
        return np.reshape(quantity(*found.model.laws(theta)), len(theta))

    def measured(theta: Array) -> tuple[Array, Array]:
        steps = DIFFERENCE_STEP * np.eye(len(names))
        slopes = [(at(theta + step) - at(theta - step)) / (2 * DIFFERENCE_STEP) for step in steps]
        return at(theta), np.stack(slopes, axis=1)

    return measured


def _interval(values: Array, deviance: Array, threshold: float) -> tuple[float, float]:
    """Return the interval in which the deviance stays below the threshold."""
    best = int(np.nanargmin(deviance))

    def crossing(indices: range, end: float) -> float:
        for inner, outer in pairwise(indices):
            if deviance[outer] > threshold >= deviance[inner]:
                share = (threshold - deviance[inner]) / (deviance[outer] - deviance[inner])
                return float(values[inner] + share * (values[outer] - values[inner]))
        return end

    return crossing(range(best, -1, -1), -np.inf), crossing(range(best, len(values)), np.inf)
