"""Generalization of a student perceptron that learns a teacher's rule with the largest margin, in theory.

Replica-symmetric theory in the form of Gordon's inequality. The student's weights are ordered by the field
h = g + lambda w_T with g standard normal, so that their overlap with the teacher is R(lambda) = E[w w_T] and
that with the noise M(lambda) = E[w g]. A load of alpha patterns per weight allows the margin kappa with

    alpha E[max(kappa - R y - sqrt(1 - R^2) t, 0)^2] = M^2,

where t is standard normal and y the teacher's field times the label, and the student is the one of the
lambda that maximizes kappa. What a constraint allows is its pair of functions R and M: a student without
constraint has w proportional to h, a student with given signs to the part of h with that sign, and a student
with a distribution of its own the quantile of that distribution at the rank of h.

The equations are this project's derivation; those of the paper (arXiv 2206.08933, appendix) were not
available. Simulations check them (``simulation.py``). For binary weights replica symmetry does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar
from scipy.special import ndtr, ndtri

from scaling.errors import InputError
from scaling.perceptron.capacity import positive_square
from scaling.perceptron.distributions import Array, WeightDistribution, normal_density
from scaling.perceptron.transport import target_weights

GRID = 400
"""Quantiles that stand for a distribution; teacher and student have equally many, so their tails agree."""
LAMBDAS = np.geomspace(1e-3, 1e5, 161)
"""Values of lambda on which the maximum of kappa is sought before it is refined."""
TABULATED = np.geomspace(1e-3, 1e3, 61)
"""Values of lambda at which the overlaps of a student with a distribution are computed."""
LEAST_NOISE = 1e-9
"""M below which the student is the teacher, to rounding."""

Overlaps = Callable[[Array], tuple[Array, Array]]
"""Function from lambda to R and M, both of lambda's shape."""


@dataclass(frozen=True)
class LearningCurve:
    """Generalization over the load; arrays of equal length."""

    alpha: Array
    """Patterns per weight."""
    overlap: Array
    """R, the cosine between the student's and the teacher's weights."""
    error: Array
    """epsilon_g, the probability of a wrong label on a new pattern."""
    margin: Array
    """kappa, the largest margin; where it is negative no such student classifies every pattern."""


def generalization_error(overlap: ArrayLike, noise: float = 0.0) -> Array:
    """Return epsilon_g = arccos(R / sqrt(1 + sigma^2)) / pi.

    Args:
        overlap: R, from -1 to 1.
        noise: sigma, standard deviation of the noise on the teacher's field.

    Raises:
        InputError: For an overlap beyond -1 to 1, or a negative noise.

    >>> generalization_error([0.0, 1.0]).tolist()
    [0.5, 0.0]
    """
    R = np.asarray(overlap, dtype=np.float64)
    if not (np.abs(R) <= 1).all():
        raise InputError("overlap: the cosine between two vectors is from -1 to 1")
    return np.asarray(np.arccos(R / np.sqrt(1 + checked_noise(noise) ** 2)) / np.pi, dtype=np.float64)


def unconstrained() -> Overlaps:
    """Return the overlaps of a student without constraint: w = h / sqrt(1 + lambda^2)."""
    return lambda lam: (lam / np.sqrt(1 + lam**2), 1 / np.sqrt(1 + lam**2))


def sign_constrained(teacher: WeightDistribution, grid: int = GRID) -> Overlaps:
    """Return the overlaps of a student whose weights have the teacher's signs, or are 0.

    With s the sign of w_T, the best weights are s max(s h, 0), scaled to unit second moment. Without a
    teacher (lambda = 0) this gives M^2 = 1/2, and with it the capacity of 1 that sign constraints leave.
    """
    size = np.abs(target_weights(teacher, grid))

    def overlaps(lam: Array) -> tuple[Array, Array]:
        shift = np.multiply.outer(lam, size)
        above = ndtr(shift)
        norm = np.sqrt(positive_square(shift).mean(axis=-1))
        first = shift * above + normal_density(shift)
        return (size * first).mean(axis=-1) / norm, above.mean(axis=-1) / norm

    return overlaps


def with_distribution(
    teacher: WeightDistribution, student: WeightDistribution | None = None, grid: int = GRID
) -> Overlaps:
    """Return the overlaps of a student with a given distribution of weights, by default the teacher's.

    Both distributions are represented by ``grid`` quantiles. The student's weights are then a step function
    of h, so R and M are exact sums over the thresholds of its steps. They are computed once, at
    :data:`TABULATED`, and interpolated.
    """
    w_T = target_weights(teacher, grid)
    w_S = w_T if student is None else target_weights(student, grid)
    R, M = _tabulate(w_T, w_S)
    usable = (M > LEAST_NOISE) & (1 - R > 1e-12)
    axis = np.log(TABULATED[usable])
    table = CubicSpline(axis, np.log([1 - R[usable], M[usable]]), axis=1)

    def overlaps(lam: Array) -> tuple[Array, Array]:
        distance, noise = np.exp(table(np.minimum(np.log(lam), axis[-1])))
        return 1 - distance, noise

    return overlaps


def _tabulate(w_T: Array, w_S: Array) -> tuple[Array, Array]:
    """Return R and M at every lambda, for ascending weights of teacher and student."""
    steps = np.diff(w_S)
    ranks = np.flatnonzero(steps)
    steps, levels = steps[ranks], (ranks + 1) / w_S.size
    if not ranks.size:
        raise InputError("student: a distribution of equal weights has nothing to learn")
    R, M = np.ones(TABULATED.size), np.zeros(TABULATED.size)
    thresholds = np.asarray(ndtri(levels), dtype=np.float64)
    for number, lam in enumerate(TABULATED):
        thresholds = _mixture_quantiles(lam * w_T, levels, thresholds)
        below = thresholds[:, None] - lam * w_T
        R[number] = w_S[-1] * w_T.mean() - steps @ (ndtr(below) @ w_T) / w_T.size
        M[number] = steps @ normal_density(below).mean(axis=1)
        if M[number] < LEAST_NOISE:
            break
    return R, M


def _mixture_quantiles(centers: Array, levels: Array, start: Array) -> Array:
    """Return quantiles of an equal mixture of unit Gaussians, by Newton steps kept within a bracket."""
    low = np.full(levels.shape, centers[0] + ndtri(levels[0]))
    high = np.full(levels.shape, centers[-1] + ndtri(levels[-1]))
    at, left = np.clip(start, low, high), np.arange(levels.size)
    for _ in range(60):
        below = at[left, None] - centers
        excess = ndtr(below).mean(axis=1) - levels[left]
        left, below, excess = (each[np.abs(excess) > 1e-11] for each in (left, below, excess))
        if not left.size:
            break
        low[left] = np.where(excess < 0, at[left], low[left])
        high[left] = np.where(excess < 0, high[left], at[left])
        newton = at[left] - excess / np.maximum(normal_density(below).mean(axis=1), 1e-300)
        inside = (newton > low[left]) & (newton < high[left])
        at[left] = np.where(inside, newton, (low[left] + high[left]) / 2)
    return at


def learning_curve(alpha: ArrayLike, overlaps: Overlaps, noise: float = 0.0) -> LearningCurve:
    """Return the generalization of the student of largest margin, at each load.

    Args:
        alpha: Patterns per weight, positive.
        overlaps: R and M of the student: :func:`unconstrained`, :func:`sign_constrained` or
            :func:`with_distribution`.
        noise: sigma, standard deviation of the noise on the teacher's field w_T xi / |w_T| before its sign.

    Raises:
        InputError: For a load that is not positive, or a negative noise.
    """
    wanted, fields = loads(alpha), field_nodes(checked_noise(noise))
    R, kappa = np.array([_student(load, overlaps, fields) for load in wanted]).T
    return LearningCurve(wanted, R, generalization_error(R, noise), kappa)


def loads(alpha: ArrayLike) -> Array:
    """Return loads as a vector.

    Raises:
        InputError: If one is not positive, or there is none.
    """
    found = np.ravel(np.asarray(alpha, dtype=np.float64))
    if not (found.size and (np.isfinite(found) & (found > 0)).all()):
        raise InputError(f"alpha: a load is a positive number of patterns per weight, not {found.tolist()}")
    return found


def _student(load: float, overlaps: Overlaps, fields: tuple[Array, Array]) -> tuple[float, float]:
    """Return R and kappa of the student of largest margin."""

    def margin(log_lambda: Array) -> Array:
        return largest_margin(load, *overlaps(np.exp(log_lambda)), fields)

    axis = np.log(LAMBDAS)
    best = int(np.argmax(margin(axis)))
    bounds = axis[max(best - 1, 0)], axis[min(best + 1, axis.size - 1)]
    found = minimize_scalar(
        lambda x: -float(margin(np.array([x]))[0]), bounds=bounds, method="bounded", options={"xatol": 1e-7}
    )
    R, _ = overlaps(np.array([np.exp(found.x)]))
    return float(np.clip(R[0], -1, 1)), -float(found.fun)


def largest_margin(load: float, R: Array, M: Array, fields: tuple[Array, Array]) -> Array:
    """Return the margin kappa that a load allows, by Newton's method from above."""
    y, weights = fields
    center, s = np.multiply.outer(R, y), np.sqrt(np.maximum(1 - R**2, 1e-300))[:, None]
    goal = M / np.sqrt(load)
    kappa = R * (weights @ y) + goal
    for _ in range(100):
        a = (kappa[:, None] - center) / s
        square = (s**2 * positive_square(a)) @ weights
        slope = (s * (a * ndtr(a) + normal_density(a))) @ weights
        root = np.sqrt(np.maximum(square, 1e-300))
        step = (root - goal) * root / np.maximum(slope, 1e-300)
        kappa = kappa - step
        if (np.abs(step) < 1e-12).all():
            break
    return np.asarray(kappa, dtype=np.float64)


def stationarity(load: float, lam: Array, R: Array, M: Array, fields: tuple[Array, Array]) -> Array:
    """Return the derivative of kappa along lambda times a negative factor; 0 at the largest margin."""
    y, weights = fields
    s = np.sqrt(np.maximum(1 - R**2, 1e-300))
    a = (largest_margin(load, R, M, fields)[:, None] - np.multiply.outer(R, y)) / s[:, None]
    pull = s * ((a * ndtr(a) + normal_density(a)) @ (weights * y)) + R * (ndtr(a) @ weights)
    return np.asarray(lam * M - load * pull, dtype=np.float64)


def field_nodes(noise: float) -> tuple[Array, Array]:
    """Return nodes and weights of y, the teacher's field times the label: density 2 phi(y) Phi(y / sigma)."""
    nodes, shares = np.polynomial.legendre.leggauss(96)
    u = (nodes + 1) / 2
    y, shares = 9 * u**3, 13.5 * u**2 * shares  # dense near 0, where students that are nearly right err
    y, shares = np.concatenate([-y[::-1], y]), np.concatenate([shares[::-1], shares])
    right = np.asarray(y > 0, dtype=np.float64) if noise == 0 else ndtr(y / noise)
    weights = 2 * normal_density(y) * right * shares
    kept = weights > 1e-18
    return y[kept], weights[kept] / weights.sum()


def checked_noise(noise: float) -> float:
    """Return the standard deviation of the noise on a field.

    Raises:
        InputError: If it is negative or not finite.
    """
    if not (np.isfinite(noise) and noise >= 0):
        raise InputError(f"noise: a standard deviation is 0 or more, not {noise:g}")
    return noise
