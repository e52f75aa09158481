"""Weight and information of rows under Huber's function, for normal noise.

Where ``delta`` is far below the noise, most rows lie in the linear zone and have no curvature there. Taken as
a Gaussian log-likelihood, the sum over rows then says less than it should, and weak priors beside it say
more. Both corrections are relative to ``delta = EFFICIENT * sigma``, which is nearly least squares.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[np.float64]

EFFICIENT = 1.345
"""Huber's constant in units of the noise: 95 % as efficient as least squares on clean data."""


def curvature(delta: Array, sigma: Array) -> Array:
    """Expected curvature of Huber's function in a row: the chance that its residual is below ``delta``.

    Arrays are (rows,); the result is 1 from ``delta = EFFICIENT * sigma`` on.
    """
    return np.asarray(_moments(delta / sigma)[0] / _moments(EFFICIENT)[0])


def score_variance(delta: Array, sigma: Array) -> Array:
    """Variance of the derivative of Huber's function in a row, in units of ``sigma**2``, (rows,)."""
    return np.asarray(_moments(delta / sigma)[1] / _moments(EFFICIENT)[1])


def row_weight(delta: Array, sigma: Array) -> Array:
    """Factor (rows,) by which a row's term of the objective behaves as a log-likelihood.

    With it the curvature of the objective equals the variance of its gradient (the information identity), so
    that priors and likelihood ratios count against what the rows say at any ``delta`` (Huber 1981, ch. 7).
    """
    return np.asarray(curvature(delta, sigma) / score_variance(delta, sigma) / sigma**2)


def row_information(delta: Array, sigma: Array) -> Array:
    """Information (rows,) of a row on what is predicted for it; ``1 / sigma**2`` for least squares."""
    return row_weight(delta, sigma) * curvature(delta, sigma)


def _moments(t: Array | float) -> tuple[Array, Array]:
    """Probability that a standard normal z is within t, and the mean of min(z^2, t^2); t up to EFFICIENT."""
    t = np.minimum(t, EFFICIENT)
    inside = erf(t / np.sqrt(2.0))
    density = np.exp(-0.5 * t**2) / np.sqrt(2.0 * np.pi)
    return inside, inside - 2.0 * t * density + t**2 * (1.0 - inside)
