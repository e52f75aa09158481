"""Expected regret of decisions: what is lost by deciding now, averaged over what the laws may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fits.design.belief import Belief
from fits.design.points import Points

Array = NDArray[np.float64]
DRAWS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionOptions:
    """DecisionOptions, each between several runs. Options of all decisions lie one after the other."""

    options: Points
    groups: tuple[NDArray[np.intp], ...]
    """Indices of the options of each decision."""
    names: tuple[str, ...]
    """DecisionOptions in words."""
    labels: tuple[str, ...]
    """Each option, in words."""

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


def expected_regret(
    belief: Belief,
    decisions: DecisionOptions,
    covariance: Array | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Regret:
    """Return the regret of deciding by the estimate, over draws of both laws.

    Args:
        belief: The estimate and its covariance.
        decisions: The decisions.
        covariance: Replaces that of the belief: what it will be once proposed runs are measured.
        draws: Number of draws.
        seed: Seed of the draws.
    """
    chosen = decisions.chosen(belief.losses(decisions.options))
    losses = belief.losses(decisions.options, belief.draws(draws, seed, covariance))
    lost = np.stack(
        [
            losses[:, pick] - losses[:, group].min(axis=1)
            for pick, group in zip(chosen, decisions.groups, strict=True)
        ],
        axis=1,
    )
    return Regret(each=lost.mean(axis=0), sure=(lost <= 0).mean(axis=0))
