"""Choice of the size in which a law describes mixtures of experts: active or total parameters."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fits.checks.comparison.compare_supervised import supervised_folds, supervised_score
from fits.checks.comparison.scores import Score
from fits.estimation.joint import Recipe
from fits.estimation.model import Rows
from fits.estimation.replicates import average_replicates
from fits.table.experts import ACTIVE, TOTAL, has_both, in_size, is_proportional
from scaling.errors import InputError

CLEARLY = 1.1
"""Ratio of held-out errors above which one size is clearly the better one."""
STARTS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeChoice:
    """The size of mixtures of experts that a fit uses, and why."""

    size: str
    """"active" or "total"."""
    errors: dict[str, float]
    """Mean held-out error of the supervised law by size, nats/token (geometric mean over checks)."""
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return asdict(self)


def choose_size(table: pd.DataFrame, recipe: Recipe, asked: str) -> tuple[pd.DataFrame, SizeChoice | None]:
    """Return the table in the size that predicts supervised runs left out better, and the choice.

    Every check leaves the same runs out under both sizes: those that it would leave out by either of them.

    Args:
        table: A validated table.
        recipe: Options of the fit.
        asked: "auto", "active" or "total".

    Returns:
        The table, and None where it does not have both sizes.

    Raises:
        InputError: for another size, or one that the table does not have.
    """
    if asked not in ("auto", ACTIVE, TOTAL):
        raise InputError(f"size must be 'auto', 'active' or 'total', not {asked!r}")
    if not has_both(table):
        if asked != "auto":
            raise InputError(
                f"size = {asked} applies to tables with columns active_params and total_params, which this "
                "one lacks"
            )
        return table, None
    choice = _chosen(table, recipe, asked)
    return in_size(table, choice.size), choice


def _chosen(table: pd.DataFrame, recipe: Recipe, asked: str) -> SizeChoice:
    if asked != "auto":
        return SizeChoice(size=asked, errors={}, reason=f"sizes are {asked} parameters, as asked for")
    if recipe.given is not None:
        return SizeChoice(
            size=ACTIVE, errors={}, reason="sizes are active parameters: the supervised law is given"
        )
    if is_proportional(table):
        reason = (
            "sizes are active parameters: total ones are the same multiple in every run, so that no run "
            "tells them apart"
        )
        return SizeChoice(size=ACTIVE, errors={}, reason=reason)
    return _by_evidence(table, recipe)


def _by_evidence(table: pd.DataFrame, recipe: Recipe) -> SizeChoice:
    tables = {size: in_size(table, size) for size in (ACTIVE, TOTAL)}
    folds = {
        f"{check}, {size}": masks
        for size, each in tables.items()
        for check, masks in supervised_folds(each).items()
    }
    only = replace(recipe, laws=(), starts=min(recipe.starts, STARTS))
    scores: dict[str, Score] = {}
    for size, each in tables.items():
        rows, _ = average_replicates(Rows.of(each).of_kind(0), only)
        scores[size] = supervised_score(each, rows, only, size, folds)
    errors = {size: score.mean for size, score in scores.items()}
    if not all(np.isfinite(error) for error in errors.values()):
        reason = "sizes are active parameters: too few runs to leave any out and compare with total ones"
        return SizeChoice(size=ACTIVE, errors={}, reason=reason)
    best, other = sorted(errors, key=lambda size: errors[size])
    ratio = errors[other] / errors[best]
    clear = "" if ratio > CLEARLY else ", hardly a difference"
    reason = (
        f"sizes are {best} parameters: the supervised law misses runs left out by {errors[best]:.4f} nats in "
        f"them, and by {errors[other]:.4f} in {other} ones{clear}"
    )
    return SizeChoice(size=best, errors=errors, reason=reason)
