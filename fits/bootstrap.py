"""Draws of the coordinates: refits of resampled runs, all at once.

A refit starts at the estimate and draws the centres of its weak priors anew, so that a direction which the
data do not determine keeps the prior's spread instead of collapsing onto its centre.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fits.estimate import Estimate, leverage
from fits.model import Model
from fits.solver import Array, Minimum, Problem, minimise
from scaling.errors import InputError

RESAMPLES = ("wild", "residual", "normal", "runs", "weights")
CHUNK = 128
"""Members solved together: their Jacobians then stay in the cache."""


def resampled(found: Estimate, draws: int, method: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Observed losses, on the scale of the fit, and row weights, both (draws, rows).

    ========= ==========================================================================================
    wild      residuals of a run, inflated for leverage, keep their size and take a random sign
    normal    noise is drawn from a normal distribution of each kind's own width
    residual  residuals, inflated for leverage, are drawn with replacement within each kind of run
    runs      runs are drawn with replacement within each kind (pairs, or cluster, bootstrap)
    weights   runs get random exponential weights (Bayesian bootstrap): no run ever vanishes
    ========= ==========================================================================================
    """
    rows = found.model.rows
    groups = int(rows.group.max()) + 1
    ones = np.ones((draws, len(rows)))
    if method == "normal":
        return found.predicted + found.sigma * rng.standard_normal((draws, len(rows))), ones
    if method == "wild":
        signs = rng.choice([-1.0, 1.0], size=(draws, groups))[:, rows.group]
        return found.predicted + signs * _inflated(found), ones
    kinds = rows.kind
    if method == "residual":
        observed = np.empty((draws, len(rows)))
        inflated = _inflated(found)
        for kind in np.unique(kinds):
            mine = np.flatnonzero(kinds == kind)
            observed[:, mine] = found.predicted[mine] + inflated[rng.choice(mine, size=(draws, len(mine)))]
        return observed, ones
    if method not in RESAMPLES:
        raise InputError(f"no bootstrap is called {method!r}; known: {', '.join(RESAMPLES)}")
    of_group = np.zeros(groups, dtype=np.intp)
    of_group[rows.group] = kinds
    weight = np.empty((draws, groups))
    for kind in np.unique(kinds):
        mine = np.flatnonzero(of_group == kind)
        if method == "runs":
            weight[:, mine] = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=draws)
        else:
            weight[:, mine] = rng.dirichlet(np.ones(len(mine)), size=draws) * len(mine)
    return np.broadcast_to(found.model.observed, (draws, len(rows))), weight[:, rows.group]


def bootstrap(
    found: Estimate,
    draws: int,
    *,
    method: str = "runs",
    seed: int = 0,
    model: Model | None = None,
    jitter: bool = True,
) -> Minimum:
    """Refit ``draws`` resampled tables; the coordinates are ``theta`` (draws, p) of what is returned.

    ``model`` replaces the estimate's own, for a law conditional on another supervised law in every draw.
    """
    rng = np.random.default_rng(seed)
    observed, weight = resampled(found, draws, method, rng)
    model = model or found.model
    centre, spread = model.prior()
    centres = np.broadcast_to(centre, (draws, model.size))
    if jitter and found.problem.precision.any():
        centres = centre + spread * rng.standard_normal((draws, model.size))
    problem = replace(
        found.problem,
        evaluate=model.evaluate,
        observed=observed,
        weight=weight * found.problem.weight,
        centre=centres,
    )
    start = np.broadcast_to(found.theta, (draws, model.size))
    return _in_chunks(problem, start, model)


def _in_chunks(problem: Problem, start: Array, model: Model) -> Minimum:
    parts: list[Minimum] = []
    for first in range(0, len(start), CHUNK):
        chunk = np.arange(first, min(first + CHUNK, len(start)))

        def evaluate(
            theta: Array, members: NDArray[np.intp], chunk: NDArray[np.intp] = chunk
        ) -> tuple[Array, Array]:
            return model.evaluate(theta, chunk[members])

        part = replace(
            problem,
            evaluate=evaluate,
            observed=problem.observed[chunk],
            weight=problem.weight[chunk],
            centre=problem.centre[chunk],
        )
        parts.append(minimise(part, start[chunk], tolerance=1e-7))
    return Minimum(
        theta=np.concatenate([part.theta for part in parts]),
        objective=np.concatenate([part.objective for part in parts]),
        converged=np.concatenate([part.converged for part in parts]),
        iterations=max(part.iterations for part in parts),
    )


def _inflated(found: Estimate) -> Array:
    """Residuals divided by sqrt(1 - leverage): their expected size is then that of the noise."""
    own = leverage(found.jacobian / found.sigma[:, None], found.problem.precision)
    return found.residual / np.sqrt(1.0 - np.minimum(own, 0.95))
