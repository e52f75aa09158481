"""Expected regret of decisions: what is lost by deciding now, averaged over what the laws may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fits.design.belief import Belief
from fits.design.points import Points

Array = NDArray[np.float64]
DRAWS = 1000
"""Draws of both laws."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionOptions:
    """Decisions, each between several runs. Options of all decisions lie one after the other."""

    options: Points
    groups: tuple[NDArray[np.intp], ...]
    """Indices of the options of each decision."""
    names: tuple[str, ...]
    """Decisions in words."""
    labels: tuple[str, ...]
    """Each option, in words."""
    notes: tuple[str, ...] = ()
    """Limits of what is compared."""

    def __len__(self) -> int:
        return len(self.groups)

    def chosen(self, losses: Array) -> NDArray[np.intp]:
        """Return the option of the lowest loss in each decision, by the losses of all options (n,)."""
        return np.array([group[int(np.argmin(losses[group]))] for group in self.groups], dtype=np.intp)


@dataclass(frozen=True, kw_only=True, slots=True)
class Regret:
    """Expected loss above the best option, nats/token, and how sure the decisions are."""

    each: Array
    """(decisions,)"""
    sure: Array
    """Probability that the option chosen is the best one, (decisions,)."""

    @property
    def mean(self) -> float:
        """Mean over the decisions."""
        return float(np.mean(self.each))


def expected_regret(belief: Belief, decisions: DecisionOptions, draws: int = DRAWS, seed: int = 0) -> Regret:
    """Return the regret of deciding by the estimate, over draws of both laws.

    Args:
        belief: The estimate and its covariance.
        decisions: The decisions.
        draws: Number of draws.
        seed: Seed of the draws.
    """
    chosen = decisions.chosen(belief.losses(decisions.options))
    losses = belief.losses(decisions.options, belief.draws(draws, seed))
    lost = np.stack(
        [
            losses[:, pick] - losses[:, group].min(axis=1)
            for pick, group in zip(chosen, decisions.groups, strict=True)
        ],
        axis=1,
    )
    return Regret(each=lost.mean(axis=0), sure=(lost <= 0).mean(axis=0))


def regret_once_measured(
    belief: Belief, decisions: DecisionOptions, covariance: Array, draws: int = DRAWS, seed: int = 0
) -> Regret:
    """Return the regret to be expected once runs are measured, before their losses are known.

    With normal coordinates the later estimate is drawn from N(estimate, C - C') and the truth around it from
    N(0, C'), with C' the covariance after the runs; the decision follows the later estimate.

    Args:
        belief: The estimate, and its covariance C.
        decisions: The decisions.
        covariance: Covariance C' once the runs are measured, (p, p).
        draws: Number of draws.
        seed: Seed of the draws.
    """
    later = belief.draws(draws, seed + 1, belief.covariance - covariance)
    truth = belief.draws(draws, seed, covariance) - belief.theta + later
    estimated = belief.losses(decisions.options, belief.clipped(later))
    losses = belief.losses(decisions.options, belief.clipped(truth))
    rows = np.arange(draws)
    lost = np.stack(
        [
            losses[rows, group[np.argmin(estimated[:, group], axis=1)]] - losses[:, group].min(axis=1)
            for group in decisions.groups
        ],
        axis=1,
    )
    return Regret(each=lost.mean(axis=0), sure=(lost <= 0).mean(axis=0))
