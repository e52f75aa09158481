"""Bootstrap of an estimate: refits of resampled runs, in one batch.

A refit starts at the estimate and draws the centers of its weak priors anew, so that a direction that the
data do not determine keeps the prior's spread instead of collapsing onto its center.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np

from fits.estimation.estimate import Estimate, leverage
from fits.estimation.levenberg_marquardt import Array, BatchProblem, Minimum, minimize
from fits.estimation.model import Model
from fits.estimation.parallel import solve_in_parts
from scaling.errors import InputError

RESAMPLES = ("wild", "residual", "normal", "runs", "weights")
ABSOLUTE_TOLERANCE = 2e-4
"""Decrease of the objective, in units of the noise, below which a refit stops.

Such a decrease moves no coordinate by 2 % of its standard error.
"""
FIRST_DELTA_RATIO = 0.1
"""First delta of a refit, in units of the noise; it is then reduced in steps of ten to the delta asked for.

With a very small delta from the start, a refit would stay at the rows that the estimate interpolates.
"""
ONE_STEP_ROWS = 5_000
"""Rows above which a draw is one Newton step from sums over runs.

It is three steps where every draw has a supervised law of its own. With so many rows the objective is
quadratic over the width of the draws.
"""


def resample_rows(found: Estimate, draws: int, method: str, seed: int) -> tuple[Array, Array]:
    """Return observed losses, on the scale of the fit, and row weights of each draw, both (draws, rows).

    The methods:

    ========= ==========================================================================================
    wild      residuals of a run, corrected for leverage, keep their size and take a random sign
    normal    noise is drawn from a normal distribution of each kind's own width
    residual  residuals, corrected for leverage, are drawn with replacement within each kind of run
    runs      runs are drawn with replacement within each kind (pairs, or cluster, bootstrap)
    weights   runs get random exponential weights (Bayesian bootstrap)
    ========= ==========================================================================================
    """
    rng = np.random.default_rng([seed, 2])
    rows = found.model.rows
    groups = int(rows.group.max()) + 1
    ones = np.ones((draws, len(rows)))
    if method == "normal":
        return found.predicted + found.sigma * rng.standard_normal((draws, len(rows))), ones
    if method == "wild":
        signs = rng.choice([-1.0, 1.0], size=(draws, groups))[:, rows.group]
        return found.predicted + signs * _leverage_corrected_residuals(found), ones
    if method == "residual":
        observed, inflated = np.empty((draws, len(rows))), _leverage_corrected_residuals(found)
        for kind in np.unique(rows.kind):
            mine = np.flatnonzero(rows.kind == kind)
            observed[:, mine] = found.predicted[mine] + inflated[rng.choice(mine, size=(draws, len(mine)))]
        return observed, ones
    weight = group_weights(found, draws, method, seed)
    return np.broadcast_to(found.model.observed, (draws, len(rows))), weight[:, rows.group]


def group_weights(found: Estimate, draws: int, method: str, seed: int) -> Array:
    """Return the weight of each run in each draw, (draws, runs).

    Each kind of run has its own random stream, so that a law fitted to the distillations alone resamples
    them as the joint fit does.

    Raises:
        InputError: for an unknown method.
    """
    if method not in RESAMPLES:
        raise InputError(f"unknown bootstrap {method!r}; accepted: {', '.join(RESAMPLES)}")
    rows = found.model.rows
    kind_of_group = np.zeros(int(rows.group.max()) + 1, dtype=np.intp)
    kind_of_group[rows.group] = rows.kind
    weight = np.empty((draws, len(kind_of_group)))
    for kind in np.unique(kind_of_group):
        mine = np.flatnonzero(kind_of_group == kind)
        rng = np.random.default_rng([seed, int(kind)])
        if method == "runs":
            weight[:, mine] = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=draws)
        else:
            weight[:, mine] = rng.dirichlet(np.ones(len(mine)), size=draws) * len(mine)
    return weight


def bootstrap(
    found: Estimate,
    draws: int,
    *,
    method: str = "runs",
    seed: int = 0,
    model: Model | None = None,
    jitter: bool = True,
    executor: Executor | None = None,
) -> Minimum:
    """Refit ``draws`` resampled tables.

    Args:
        found: The estimate to resample.
        draws: Number of draws.
        method: One of ``RESAMPLES``; :func:`resample_rows` describes them.
        seed: Seed of the random numbers.
        model: Replaces the estimate's model, for a law conditional on another supervised law in every draw.
        jitter: Draw the centers of the priors anew in every draw.
        executor: Runs parts of the batch in threads, processes or on machines.

    Returns:
        The minima; ``theta`` (draws, p) holds the coordinates.
    """
    alone, model = model in (None, found.model), model or found.model
    smooth = float(np.mean(np.abs(found.residual) <= found.problem.delta)) > 0.3
    if alone and smooth and len(model.rows) > ONE_STEP_ROWS and method in ("runs", "weights"):
        centers = _prior_centers(found, model, draws, seed, jitter)
        return _one_step(found, group_weights(found, draws, method, seed), centers)
    problem = resampled_problem(found, draws, method=method, seed=seed, model=model, jitter=jitter)
    return _solve(found, model, problem, executor)


def refit(found: Estimate, model: Model, weight: Array) -> Minimum:
    """Refit the rows with other weights, starting at the estimate.

    Args:
        found: The estimate.
        model: Its model, or the same one conditional on another supervised law in every member.
        weight: (members, rows): the weight of every row in each refit, zero for one that is left out.
    """
    observed = np.broadcast_to(model.observed, weight.shape)
    problem = replace(found.problem, evaluate=model.evaluate, observed=observed, weight=weight)
    return _solve(found, model, problem)


def _solve(found: Estimate, model: Model, problem: BatchProblem, executor: Executor | None = None) -> Minimum:
    start = np.broadcast_to(found.theta, (len(problem.weight), model.size))
    return solve_in_parts(model, problem, start, partial(_refit, _delta_schedule(found)), executor)


def resampled_problem(
    found: Estimate, draws: int, *, method: str, seed: int, model: Model, jitter: bool = True
) -> BatchProblem:
    """Return the batch problem of all resampled tables."""
    observed, weight = resample_rows(found, draws, method, seed)
    return replace(
        found.problem,
        evaluate=model.evaluate,
        observed=observed,
        weight=weight * found.problem.weight,
        center=_prior_centers(found, model, draws, seed, jitter),
    )


def _prior_centers(found: Estimate, model: Model, draws: int, seed: int, jitter: bool) -> Array:
    """Return the prior centers of each draw, (draws, p)."""
    center, spread = model.prior()
    if not (jitter and found.problem.precision.any()):
        return np.broadcast_to(center, (draws, model.size))
    rng = np.random.default_rng([seed, 3])
    return np.asarray(center + spread * rng.standard_normal((draws, model.size)))


def _delta_schedule(found: Estimate) -> list[Array]:
    """Return decreasing values of Huber's delta, (rows,) each, down to the delta asked for."""
    asked, widths = found.problem.delta, [np.maximum(found.problem.delta, FIRST_DELTA_RATIO * found.sigma)]
    while (widths[-1] > asked).any():
        widths.append(np.maximum(asked, widths[-1] / 10))
    return widths


def _refit(deltas: list[Array], problem: BatchProblem, start: Array) -> Minimum:
    steps = 200 if problem.observed.shape[1] <= ONE_STEP_ROWS else 3
    for delta in deltas:
        narrowed = replace(problem, delta=delta)
        found = minimize(narrowed, start, tolerance=1e-7, absolute=ABSOLUTE_TOLERANCE, iterations=steps)
        start = found.theta
    return found


def _one_step(found: Estimate, weight: Array, centers: Array) -> Minimum:
    """Take one Newton step for every row of ``weight`` (draws, runs), from sums of derivatives over runs."""
    rows, problem = found.model.rows, found.problem
    order = np.argsort(rows.group, kind="stable")
    first = np.searchsorted(rows.group[order], np.arange(int(rows.group.max()) + 1))
    residual, jacobian = -found.residual[order], found.jacobian[order]
    size = np.maximum(np.abs(residual), 1e-300)
    robust = problem.weight[0][order] * np.minimum(1.0, problem.delta[order] / size)
    curvature = problem.weight[0][order] * (size <= problem.delta[order])
    gradient = np.add.reduceat(jacobian * (robust * residual)[:, None], first)
    p = found.model.size
    products = (jacobian[:, :, None] * jacobian[:, None, :]).reshape(-1, p * p)
    hessian = np.add.reduceat(products * curvature[:, None], first)
    slope = weight @ gradient + problem.precision * (found.theta - centers)
    bend = (weight @ hessian).reshape(-1, p, p) + np.diag(problem.precision)
    step = np.linalg.solve(bend, slope[:, :, None])[:, :, 0]
    theta = np.clip(found.theta - step, problem.lower, problem.upper)
    unknown = np.full(len(theta), np.nan)
    return Minimum(theta=theta, objective=unknown, converged=np.ones(len(theta), dtype=bool), iterations=1)


def _leverage_corrected_residuals(found: Estimate) -> Array:
    """Return residuals divided by sqrt(1 - leverage), whose expected size is that of the noise."""
    own = leverage(found.scaled_jacobian, found.problem.precision)
    return found.residual / np.sqrt(1.0 - np.minimum(own, 0.95))
