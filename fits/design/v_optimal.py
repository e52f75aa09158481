"""V-optimal picks: the runs that lower the variance of the losses in question most, per FLOP.

Of a run with gradient g_i the gain is the mean over the points in question of
(g_t' C g_i)^2 / (sigma^2 + g_i' C g_i), with C the covariance of the coordinates; the next run is the one of
the largest gain per FLOP. After a pick, C is updated as if the run had been measured (a fantasy update, for
which its loss does not matter), and its teacher counts as trained (Fedorov 1972; Chaloner and Verdinelli
1995).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fits.design.candidates import Candidates

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Pick(NamedTuple):
    """Run to train, and what it is worth."""

    run: int
    """Index among the candidates."""
    with_it: tuple[int, ...]
    """Candidates that are trained for it, such as its teacher."""
    flops: float
    """FLOPs of everything that is not paid for yet."""
    gain: float
    """Decrease of the mean variance of ln loss at the points in question."""
    variance: float
    """Mean variance before the pick."""
    by_point: Array
    """Decrease of the variance at each point, (points,)."""
    covariance: Array
    """Covariance of the coordinates once it is measured, (p, p)."""


def greedy(
    covariance: Array,
    at_points: Array,
    at_candidates: Array,
    candidates: Candidates,
    sigma: float,
    *,
    paid: Mask,
    skipped: Mask | None = None,
    spend: float = np.inf,
) -> Iterator[Pick]:
    """Yield runs to train, each given those before it.

    Args:
        covariance: Covariance of the coordinates, (p, p).
        at_points: Gradients of ln loss at the points in question, (points, p).
        at_candidates: Gradients at the candidates, (n, p).
        candidates: The runs.
        sigma: Noise of ln loss of one run.
        paid: Steps that are done, (s,).
        skipped: Runs that are not proposed, (n,): another driver trains them, or they failed.
        spend: FLOPs that the picks may cost together.
    """
    paid = paid.copy()
    variance_of = candidates.variance(sigma)
    blocked = np.zeros(len(candidates), dtype=bool) if skipped is None else skipped
    while True:
        cost, there = candidates.cost(paid), candidates.done(paid)
        open_runs = ~there & ~blocked & ~candidates.superseded(there) & (cost <= spend * (1 + 1e-12))
        if not open_runs.any():
            return
        open_runs = _new_configurations(candidates, open_runs, there)
        seen = at_candidates @ covariance
        spread = np.einsum("np,np->n", seen, at_candidates)
        decrease = (at_points @ seen.T) ** 2 / (variance_of + spread)
        gain = decrease.mean(axis=0)
        rate = np.where(open_runs, gain / np.maximum(cost, 1e-300), -1.0)
        run = int(np.argmax(rate))
        variance = float(np.mean(np.einsum("tp,pq,tq->t", at_points, covariance, at_points)))
        paid[candidates.steps_of(run)] = True
        fresh = np.flatnonzero(candidates.done(paid) & ~there)
        for each in fresh:
            covariance = updated(covariance, at_candidates[each], variance_of[each])
        spend -= cost[run]
        yield Pick(
            run=run,
            with_it=tuple(int(each) for each in fresh if each != run),
            flops=float(cost[run]),
            gain=float(gain[run]),
            variance=variance,
            by_point=decrease[:, run],
            covariance=covariance,
        )


def updated(covariance: Array, gradient: Array, variance: float) -> Array:
    """Return the covariance once a run is measured, by its gradient (p,) and the variance of its ln loss."""
    seen = covariance @ gradient
    return np.asarray(covariance - np.outer(seen, seen) / (variance + gradient @ seen))


def _new_configurations(candidates: Candidates, open_runs: Mask, there: Mask) -> Mask:
    """Return the open runs whose configuration was not trained, if there are any; else all open ones."""
    trained = np.unique(candidates.configuration[there])
    new = open_runs & ~np.isin(candidates.configuration, trained)
    return new if new.any() else open_runs
