"""Weight of gamma = 1 against a free gamma, from blocks of supervised runs left out of refits.

With few runs a free gamma misses by far where the truth is near 1, and gamma = 1 where it is not; likelihoods
of the fitted runs do not tell which. So both predict the largest runs from the others, and gamma is pulled
from its free estimate towards 1 by as much as their errors weigh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from fits.checks.heldout.heldout import Block, leave_blocks_out
from fits.estimation.estimate import Estimate
from fits.estimation.joint import SUPERVISED, Recipe, fit_laws
from fits.estimation.laws.parametrization import Prior
from fits.estimation.model import Rows
from scaling.laws.registry import POWER_LAW

PRIOR_ODDS = 1.0
"""Odds of gamma = 1 for one run, before any block; they fall as one over the number of runs."""
ERROR_POWER = 4.0
"""Power of the ratio of the errors on the blocks that multiplies the odds."""
ERROR_FLOOR = 0.002
"""Relative error added to both, on differences below which no weight rests."""
NEGLIGIBLE = 0.1
"""A smaller weight of gamma = 1 is zero."""
STARTS = 16
"""Largest number of starts of the fit with a free gamma."""
GAMMA = f"{SUPERVISED} ln gamma"


class GammaErrors(NamedTuple):
    """Root mean square errors of ln loss on one block of runs left out."""

    rule: str
    free: float
    """Error with gamma free."""
    one: float
    """Error with gamma = 1."""


def weigh_gamma(table: pd.DataFrame, rows: Rows, recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Return the recipe with the prior of gamma pulled towards 1 by what left-out blocks ask for, and a note.

    The pull is an observation of ln gamma = 0, of such a precision that the free estimate moves to the
    weighted mean of both. In refits without one of the blocks the weight is that of the other blocks.

    Args:
        table: The validated table.
        rows: Its rows as they are fitted.
        recipe: The recipe; one in which gamma is not free under its prior is returned as it is.
    """
    if recipe.given is not None or recipe.sibling is not None or recipe.supervised_law != POWER_LAW:
        return recipe, []
    if "gamma" in recipe.pins or not recipe.objective.priors:
        return recipe, []
    recipe_of_one = replace(recipe, laws=recipe.laws[:1], starts=min(recipe.starts, STARTS))
    free, blocks = _leave_out(table, rows, recipe_of_one)
    _, pinned = _leave_out(table, rows, replace(recipe_of_one, pins={**recipe.pins, "gamma": 1.0}))
    runs = len(np.unique(rows.of_kind(0).group))
    errors = [
        GammaErrors(one.rule, one.supervised_error, other.supervised_error)
        for one, other in zip(blocks, pinned, strict=True)
    ]
    weight = weight_of_one(errors, runs)
    if not weight:
        return recipe, []
    others = {each.rule: [other for other in errors if other is not each] for each in errors}
    pulled = replace(
        recipe,
        priors=_pulled(free, weight),
        priors_without={rule: _pulled(free, weight_of_one(of, runs)) for rule, of in others.items()},
    )
    one, other = _percent([e.one for e in errors]), _percent([e.free for e in errors])
    return pulled, [
        f"gamma is pulled towards 1 with weight {weight:.2f}: the largest runs, left out, are predicted to "
        f"{one} with gamma = 1 and to {other} with gamma free"
    ]


def weight_of_one(errors: Sequence[GammaErrors], runs: int) -> float:
    """Return the weight of gamma = 1, from 0 to below 1; 0 without blocks.

    Its odds are ``PRIOR_ODDS / runs`` times a power of the ratio of the errors, averaged geometrically.
    """
    if not errors:
        return 0.0
    ratio = np.exp(np.mean([np.log((e.free + ERROR_FLOOR) / (e.one + ERROR_FLOOR)) for e in errors]))
    odds = PRIOR_ODDS / runs * float(ratio) ** ERROR_POWER
    weight = odds / (1.0 + odds)
    return weight if weight >= NEGLIGIBLE else 0.0


def _leave_out(table: pd.DataFrame, rows: Rows, recipe: Recipe) -> tuple[Estimate, list[Block]]:
    """Return the estimate that gives the supervised law, and its refits without blocks of supervised runs."""
    found = fit_laws(rows, recipe)
    blocks = leave_blocks_out(table, rows, recipe, found)
    return next(iter(found.values())), [each for each in blocks if each.left.n_supervised]


def _pulled(free: Estimate, weight: float) -> dict[str, Prior]:
    """Return the prior under which ln gamma moves from its free estimate to (1 - weight) of that."""
    at = free.model.names.index(GAMMA)
    prior = Prior(free.model.space[at].prior, free.model.space[at].prior_sd)
    if not weight:
        return {GAMMA: prior}
    variance = free.standard_errors[at] ** 2
    return {GAMMA: prior.times(Prior(0.0, float(np.sqrt(variance * (1.0 - weight) / weight))))}


def _percent(errors: Sequence[float]) -> str:
    """Return the geometric mean of errors in per cent, as text."""
    return f"{100 * np.exp(np.mean(np.log(np.maximum(errors, 1e-9)))):.2f} %"
