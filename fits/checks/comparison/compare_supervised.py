"""Comparison of supervised laws on the supervised runs: hold-outs of sizes, tokens and compute, and BIC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from fits.checks.comparison.scores import Comparison, Score, pooled_rmse, score
from fits.checks.design import design_findings, raise_refusals, table_notes
from fits.checks.heldout.folds import (
    FEW_TO_MANY,
    LARGEST_COMPUTE,
    LEFT_OUT,
    SIZE,
    SMALL_TO_LARGE,
    Mask,
    nearest_level,
)
from fits.checks.heldout.heldout import extrapolation_mask
from fits.estimation.joint import SUPERVISED, Recipe, fit_laws
from fits.estimation.model import Rows, last_tokens
from fits.estimation.replicates import average_replicates
from fits.estimation.settings import check_options, fix_gamma
from scaling.errors import InputError
from scaling.laws.registry import POWER_LAW

MOST_SIZES = 12
"""Sizes that are left out one at a time; of more, as many groups of neighbors."""


def compare_supervised_laws(
    table: pd.DataFrame,
    laws: Sequence[str],
    recipe: Recipe,
    gamma: str | float = "auto",
    given: object = None,
) -> Comparison:
    """Fit every supervised law to the supervised runs and cross-validate it.

    Args:
        table: The validated table; its distillations are not used.
        laws: Supervised laws by name.
        recipe: The other options; ``gamma`` and ``tied`` concern the power law alone.
        gamma: As in :func:`fits.fit`.
        given: A supervised law that the caller gave, which leaves nothing to compare.

    Raises:
        InputError: if the supervised runs cannot determine a law, or an option does not apply.
    """
    if given is not None:
        raise InputError(
            "the supervised law is given, and supervised laws are compared: leave one of them out"
        )
    supervised = table.assign(
        excluded=table["excluded"].where(
            (table["excluded"] != "") | (table["kind"] == SUPERVISED), "not used"
        )
    )
    rows = Rows.of(supervised)
    rows, repeated = average_replicates(rows, recipe)
    folds, scores, notes = supervised_folds(supervised), [], list[str]()
    for law in laws:
        only = replace(recipe, supervised_law=law, tied=recipe.tied and law == POWER_LAW)
        its_gamma = gamma if law == POWER_LAW else "auto"
        check_options(rows, only, gamma=its_gamma)
        only, decided = fix_gamma(only, its_gamma)
        raise_refusals(design_findings(supervised, rows, None, only.free()))
        scores.append(supervised_score(supervised, rows, only, law, folds))
        notes += decided
    found = Comparison(scores=tuple(scores), runs=len(rows), kind=SUPERVISED)
    best = [f"the least mean error on runs left out is that of {found.preferred}"] if found.preferred else []
    return replace(found, notes=(*best, *notes, *table_notes(table), *repeated))


def supervised_folds(table: pd.DataFrame) -> dict[str, list[Mask]]:
    """Return, for each check, masks (rows,) of what each fold leaves out of the supervised runs.

    A size at a time, neighbors together where there are many; a third of the runs with the most tokens; a
    third of the largest sizes; a fifth with the largest compute. Checkpoints go with their run.
    """
    used = ((table["excluded"] == "") & (table["kind"] == SUPERVISED)).to_numpy()
    N, D = table["params"].to_numpy(np.float64), last_tokens(table)
    level = nearest_level(N, used)
    sizes = len(np.unique(level[used]))
    group = level * min(MOST_SIZES, sizes) // sizes
    return {
        SIZE: [used & (group == each) for each in np.unique(group[used])],
        FEW_TO_MANY: [used & (float(np.quantile(D[used], 1 - LEFT_OUT)) < D)],
        SMALL_TO_LARGE: [used & (float(np.quantile(N[used], 1 - LEFT_OUT)) < N)],
        LARGEST_COMPUTE: [used & extrapolation_mask(table, "compute")],
    }


def supervised_score(
    table: pd.DataFrame, rows: Rows, recipe: Recipe, name: str, folds: Mapping[str, Sequence[Mask]]
) -> Score:
    """Return the scores of the supervised law of a recipe, with every fold left out in turn.

    Args:
        table: The validated table.
        rows: Its supervised rows, as they are fitted.
        recipe: Options, with the supervised law and without distillation laws.
        name: Name of the score.
        folds: As :func:`supervised_folds` returns them.
    """
    estimates = fit_laws(rows, recipe)
    errors = {
        check: pooled_rmse(table, rows, each, check, recipe, estimates) for check, each in folds.items()
    }
    known = {check: error for check, error in errors.items() if np.isfinite(error)}
    return score(name, estimates[SUPERVISED], known)
