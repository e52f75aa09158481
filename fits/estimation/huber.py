"""Weight and information of rows under Huber's function, for normal noise.

Where ``delta`` is far below the noise, most residuals lie where the function is linear and has no curvature.
Read as a Gaussian log-likelihood, the sum over rows is then too flat, and weak priors weigh too much. Both
corrections are relative to ``delta = EFFICIENT * sigma``, which is nearly least squares.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[np.float64]

EFFICIENT = 1.345
"""Huber's constant in units of the noise: 95 % as efficient as least squares on clean data."""


def curvature(delta: Array, sigma: Array) -> Array:
    """Return the expected curvature of Huber's function: the probability of a residual below ``delta``.

    Arrays are (rows,); the result is 1 for ``delta >= EFFICIENT * sigma``.
    """
    return np.asarray(_moments(delta / sigma)[0] / _moments(EFFICIENT)[0])


def score_variance(delta: Array, sigma: Array) -> Array:
    """Return the variance of the derivative of Huber's function (rows,), in units of ``sigma**2``."""
    return np.asarray(_moments(delta / sigma)[1] / _moments(EFFICIENT)[1])


def row_weight(delta: Array, sigma: Array) -> Array:
    """Return the factor (rows,) that makes a row's term of the objective a log-likelihood.

    With it the curvature of the objective equals the variance of its gradient (the information identity), so
    that priors and likelihood ratios are weighed correctly at any ``delta`` (Huber 1981, ch. 7).
    """
    return np.asarray(curvature(delta, sigma) / score_variance(delta, sigma) / sigma**2)


def row_information(delta: Array, sigma: Array) -> Array:
    """Return the information (rows,) of a row about its prediction: ``1 / sigma**2`` in least squares."""
    return row_weight(delta, sigma) * curvature(delta, sigma)


def _moments(t: Array | float) -> tuple[Array, Array]:
    """Return P(|z| < t) and the mean of min(z^2, t^2) of a standard normal z, for t up to EFFICIENT."""
    t = np.minimum(t, EFFICIENT)
    inside = erf(t / np.sqrt(2.0))
    density = np.exp(-0.5 * t**2) / np.sqrt(2.0 * np.pi)
    return inside, inside - 2.0 * t * density + t**2 * (1.0 - inside)
