"""Batched robust Levenberg-Marquardt: many starts, or many bootstraps, of one small problem at once.

Every array has a leading batch axis, so a thousand bootstraps cost a few hundred NumPy calls. The objective
of one member of the batch is::

    sum_i w_i rho(r_i)  +  1/2 sum_j precision_j (theta_j - center_j)^2

with ``rho`` Huber's function (half the square below ``delta``, linear above) of the residuals
``r = predicted - observed``. It is a sum, not a mean: a mean makes gradient tests stop early.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Evaluate = Callable[[Array, NDArray[np.intp]], tuple[Array, Array]]
"""(theta (b, p), members (b,)) -> predictions (b, n) and their Jacobian (b, p, n)."""


LINEAR_CURVATURE = 0.2
"""Share of the reweighted curvature that a row beyond ``delta`` keeps.

0 is Newton's method, 1 iteratively reweighted least squares, which converges linearly and takes three times
as many steps where most rows are beyond ``delta``.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchProblem:
    """Batch of ``b`` robust least-squares problems with ``n`` rows and ``p`` coordinates."""

    evaluate: Evaluate
    observed: Array
    """(b, n) or (1, n)."""
    weight: Array
    """(b, n) or (1, n)."""
    lower: Array
    upper: Array
    """(p,): bounds of the coordinates."""
    center: Array
    """(b, p) or (1, p): centers of the priors."""
    precision: Array
    """(p,): inverse variances of the priors; zero for no prior."""
    delta: Array
    """(n,): residual above which Huber's function is linear; infinity is least squares."""
    asymmetry: float = 1.0
    """Cost ratio of over- to under-prediction."""

    def rows(self, array: Array, members: NDArray[np.intp]) -> Array:
        """Return the rows of a (b, ...) array that belong to these members of the batch."""
        return array if len(array) == 1 else array[members]


@dataclass(frozen=True, kw_only=True, slots=True)
class Minimum:
    """Result of a batch minimization; every array has the batch axis first."""

    theta: Array
    objective: Array
    converged: NDArray[np.bool_]
    iterations: int


def minimize(
    problem: BatchProblem,
    start: Array,
    *,
    iterations: int = 1000,
    tolerance: float = 1e-9,
    absolute: float = 0.0,
) -> Minimum:
    """Minimize every member of the batch from its row of ``start`` (b, p).

    Members that converge leave the batch, so that the slow ones cost no more than themselves. A member has
    converged when the Newton decrement falls below ``tolerance`` times its objective, or below ``absolute``.
    """
    theta = np.clip(start, problem.lower, problem.upper)
    members = np.arange(len(theta))
    damping = np.full(len(theta), 1e-3)
    converged = np.zeros(len(theta), dtype=bool)
    objective, gradient, hessian = quadratic(problem, theta, members)
    live, count = members, 0
    while len(live) and count < iterations:
        count += 1
        here, mu = theta[live], damping[live]
        step, decrement = _step(problem, here, gradient[live], hessian[live], mu)
        trial = np.clip(here + step, problem.lower, problem.upper)
        new_objective, new_gradient, new_hessian = quadratic(problem, trial, live)
        better = new_objective < objective[live]
        won = live[better]
        theta[won], objective[won] = trial[better], new_objective[better]
        gradient[won], hessian[won] = new_gradient[better], new_hessian[better]
        damping[live] = np.clip(np.where(better, mu * 0.15, mu * 6.0), 1e-12, 1e12)
        small = decrement <= np.maximum(tolerance * objective[live], absolute)
        done = (small & (mu < 1.0)) | (damping[live] > 1e11)
        converged[live[done]] = True
        live = live[~done]
    return Minimum(theta=theta, objective=objective, converged=converged, iterations=count)


def objective(problem: BatchProblem, theta: Array) -> Array:
    """Return the objective (b,) of every member at ``theta`` (b, p)."""
    return quadratic(problem, theta, np.arange(len(theta)))[0]


def quadratic(problem: BatchProblem, theta: Array, members: NDArray[np.intp]) -> tuple[Array, Array, Array]:
    """Return objective (b,), gradient (b, p) and a positive definite model of the Hessian (b, p, p)."""
    predicted, jacobian = problem.evaluate(theta, members)
    residual = predicted - problem.rows(problem.observed, members)
    weight = problem.rows(problem.weight, members)
    if problem.asymmetry != 1.0:
        weight = weight * np.where(residual > 0, problem.asymmetry, 1.0)
    if np.all(np.isinf(problem.delta)):
        size, robust, rho = None, weight, 0.5 * residual**2
    else:
        size = np.abs(residual)
        capped = np.minimum(size, problem.delta)
        rho = capped * (size - 0.5 * capped)
        robust = weight * (capped / np.maximum(size, 1e-300))
    away = theta - problem.rows(problem.center, members)
    value = np.sum(weight * rho, axis=-1) + 0.5 * np.sum(problem.precision * away**2, axis=-1)
    weighted = jacobian * robust[:, None, :]
    gradient = np.matmul(weighted, residual[:, :, None])[:, :, 0] + problem.precision * away
    if size is not None:  # a linear term has no curvature; a share of it keeps distant starts stable
        weighted *= np.where(size > capped, LINEAR_CURVATURE, 1.0)[:, None, :]
    hessian = np.matmul(weighted, jacobian.transpose(0, 2, 1))
    diagonal = np.arange(theta.shape[1])
    hessian[:, diagonal, diagonal] += problem.precision
    finite = np.isfinite(value)
    if not finite.all():
        value = np.where(finite, value, np.inf)
        gradient, hessian = np.nan_to_num(gradient), np.nan_to_num(hessian)
    return np.asarray(value), np.asarray(gradient), np.asarray(hessian)


def _step(
    problem: BatchProblem, theta: Array, gradient: Array, hessian: Array, mu: Array
) -> tuple[Array, Array]:
    """Return the damped Newton step, and the decrease that the quadratic model predicts for it.

    Coordinates that the gradient holds at a bound are removed from the system.
    """
    held = ((theta <= problem.lower) & (gradient > 0)) | ((theta >= problem.upper) & (gradient < 0))
    free = ~held
    system = hessian * (free[:, :, None] & free[:, None, :])
    diagonal = np.arange(theta.shape[1])
    scale = system[:, diagonal, diagonal]
    floor = 1e-12 * np.maximum(scale.max(axis=1, keepdims=True), 1e-300)
    system[:, diagonal, diagonal] = np.where(
        held, 1.0, scale + mu[:, None] * np.maximum(scale, floor) + floor
    )
    step = -np.linalg.solve(system, (gradient * free)[:, :, None])[:, :, 0]
    return np.asarray(step), np.asarray(-0.5 * np.sum(step * gradient * free, axis=1))
