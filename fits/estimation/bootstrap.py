"""Draws of the coordinates: refits of resampled runs, all at once.

A refit starts at the estimate and draws the centres of its weak priors anew, so that a direction which the
data do not determine keeps the prior's spread instead of collapsing onto its centre.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np

from fits.estimation.estimate import Estimate, leverage
from fits.estimation.levenberg_marquardt import Array, Minimum, Problem, minimise
from fits.estimation.model import Model
from fits.estimation.parallel import solve
from scaling.errors import InputError

RESAMPLES = ("wild", "residual", "normal", "runs", "weights")
NEGLIGIBLE = 2e-4
"""A decrease of the objective, in units of the noise, that moves no coordinate by 2 % of its error."""
NARROW = 0.1
"""Huber's function is narrowed in steps of ten from this share of the noise on. From the estimate straight
away it would be narrower than any step, and the rows that the estimate passes through would hold it there."""
LINEARISED = 5_000
"""From this many rows on, a draw is one Newton step from sums over runs, or three where every draw has a
supervised law of its own: with so many rows the objective is a parabola over the width of the draws."""


def resampled(found: Estimate, draws: int, method: str, seed: int) -> tuple[Array, Array]:
    """Observed losses, on the scale of the fit, and row weights, both (draws, rows).

    ========= ==========================================================================================
    wild      residuals of a run, inflated for leverage, keep their size and take a random sign
    normal    noise is drawn from a normal distribution of each kind's own width
    residual  residuals, inflated for leverage, are drawn with replacement within each kind of run
    runs      runs are drawn with replacement within each kind (pairs, or cluster, bootstrap)
    weights   runs get random exponential weights (Bayesian bootstrap): no run ever vanishes
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
        return found.predicted + signs * _inflated(found), ones
    if method == "residual":
        observed, inflated = np.empty((draws, len(rows))), _inflated(found)
        for kind in np.unique(rows.kind):
            mine = np.flatnonzero(rows.kind == kind)
            observed[:, mine] = found.predicted[mine] + inflated[rng.choice(mine, size=(draws, len(mine)))]
        return observed, ones
    weight = group_weights(found, draws, method, seed)
    return np.broadcast_to(found.model.observed, (draws, len(rows))), weight[:, rows.group]


def group_weights(found: Estimate, draws: int, method: str, seed: int) -> Array:
    """How often each run counts in each draw, (draws, runs).

    A kind of run has a random stream of its own, so that a law fitted to the distillations alone sees the
    same ones as the joint fit does.
    """
    if method not in RESAMPLES:
        raise InputError(f"no bootstrap is called {method!r}; known: {', '.join(RESAMPLES)}")
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
    """Refit ``draws`` resampled tables; the coordinates are ``theta`` (draws, p) of what is returned.

    ``model`` replaces the estimate's own, for a law conditional on another supervised law in every draw.
    ``executor`` spreads the work over threads, processes or machines.
    """
    alone, model = model in (None, found.model), model or found.model
    smooth = float(np.mean(np.abs(found.residual) <= found.problem.delta)) > 0.3
    if alone and smooth and len(model.rows) > LINEARISED and method in ("runs", "weights"):
        centres = _centres(found, model, draws, seed, jitter)
        return _one_step(found, group_weights(found, draws, method, seed), centres)
    problem = redrawn(found, draws, method=method, seed=seed, model=model, jitter=jitter)
    start = np.broadcast_to(found.theta, (draws, model.size))
    return solve(model, problem, start, partial(_refit, _narrowing(found)), executor)


def redrawn(
    found: Estimate, draws: int, *, method: str, seed: int, model: Model, jitter: bool = True
) -> Problem:
    """What every one of the draws minimises, as one batch."""
    observed, weight = resampled(found, draws, method, seed)
    return replace(
        found.problem,
        evaluate=model.evaluate,
        observed=observed,
        weight=weight * found.problem.weight,
        centre=_centres(found, model, draws, seed, jitter),
    )


def _centres(found: Estimate, model: Model, draws: int, seed: int, jitter: bool) -> Array:
    """Where the priors of each draw pull, (draws, p)."""
    centre, spread = model.prior()
    if not (jitter and found.problem.precision.any()):
        return np.broadcast_to(centre, (draws, model.size))
    rng = np.random.default_rng([seed, 3])
    return np.asarray(centre + spread * rng.standard_normal((draws, model.size)))


def _narrowing(found: Estimate) -> list[Array]:
    """Where Huber's function turns linear, (rows,), step by step down to what was asked for."""
    asked, widths = found.problem.delta, [np.maximum(found.problem.delta, NARROW * found.sigma)]
    while (widths[-1] > asked).any():
        widths.append(np.maximum(asked, widths[-1] / 10))
    return widths


def _refit(deltas: list[Array], problem: Problem, start: Array) -> Minimum:
    steps = 200 if problem.observed.shape[1] <= LINEARISED else 3
    for delta in deltas:
        narrowed = replace(problem, delta=delta)
        found = minimise(narrowed, start, tolerance=1e-7, absolute=NEGLIGIBLE, iterations=steps)
        start = found.theta
    return found


def _one_step(found: Estimate, weight: Array, centres: Array) -> Minimum:
    """One Newton step for every row of ``weight`` (draws, runs), from each run's share of the derivatives."""
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
    slope = weight @ gradient + problem.precision * (found.theta - centres)
    bend = (weight @ hessian).reshape(-1, p, p) + np.diag(problem.precision)
    step = np.linalg.solve(bend, slope[:, :, None])[:, :, 0]
    theta = np.clip(found.theta - step, problem.lower, problem.upper)
    unknown = np.full(len(theta), np.nan)
    return Minimum(theta=theta, objective=unknown, converged=np.ones(len(theta), dtype=bool), iterations=1)


def _inflated(found: Estimate) -> Array:
    """Residuals divided by sqrt(1 - leverage): their expected size is then that of the noise."""
    own = leverage(found.scaled_jacobian, found.problem.precision)
    return found.residual / np.sqrt(1.0 - np.minimum(own, 0.95))
