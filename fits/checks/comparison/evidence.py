"""Weights of laws from the runs that they predict unseen: stacking, and which laws the runs refute.

Every law is refitted without blocks of the distillations: each student size, each cell (a student size and
token count), and a third of the runs in one direction (better teachers, worse ones, more tokens, larger
students). A law's score is the mean logarithm of the density that it gave the runs left out; checks weigh the
same, and so do the blocks of a check.

A law is refuted where it scores below the best by more than twice the standard error of the difference over
cells. The others get the weights whose mixture of densities scores best (Yao, Vehtari, Simpson and Gelman
2018, "Using stacking to average Bayesian predictive distributions", Eq. 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import gammaln

from fits.checks.heldout.folds import CELL, Mask, cross_validation_folds
from fits.checks.heldout.heldout import has_enough_runs
from fits.estimation.estimate import Estimate
from fits.estimation.joint import Recipe
from fits.estimation.leave_out import BlockPredictions, predict_left_out
from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import Rows

Pairs = NDArray[np.intp]
"""(pairs of a block and a run that it leaves out,)"""

FREEDOM = 4.0
"""Degrees of freedom of the t distribution of a run around a law: a run far off costs a finite amount."""
REFUTED = 2.0
"""Standard errors by which a refuted law scores below the best."""
MIN_CELLS = 5
"""Fewer cells than this give no standard error to rely on; then all laws count the same."""
NEGLIGIBLE = 0.005
"""A smaller weight is zero."""


COLUMNS = ("law", "held-out score", "below the best (se)", "weight", "best on")
"""Headers of the table of evidence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LawEvidence:
    """Evidence of the runs for one law."""

    law: str
    score: float
    """Mean logarithm of the predictive density of runs left out, on the scale of the fit; more is better."""
    deficit: float
    """Difference of the score from the best."""
    deficit_se: float
    """Standard error of that, over cells."""
    refuted: bool
    weight: float
    best_on: tuple[str, ...]
    """Checks on which no other law scores higher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Evidence of the runs for each of several laws."""

    laws: tuple[LawEvidence, ...]
    checks: Mapping[str, int]
    """Number of blocks left out, by check."""
    cells: int

    @property
    def weights(self) -> dict[str, float]:
        """Weights by law, summing to 1."""
        return {each.law: each.weight for each in self.laws}

    @property
    def preferred(self) -> str:
        """The law of the largest weight."""
        return max(self.laws, key=lambda each: each.weight).law

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            "laws": [asdict(each) for each in self.laws],
            "blocks": dict(self.checks),
            "cells": self.cells,
        }

    def table(self) -> list[list[str]]:
        """Return a row for each law: its name, score, deficit, weight and the checks on which it is best."""
        return [
            [
                each.law,
                f"{each.score:.3f}",
                f"{each.deficit:.3f} ({each.deficit_se:.3f})" if each.deficit else "",
                "refuted" if each.refuted else f"{each.weight:.2f}",
                "every check" if len(each.best_on) == len(self.checks) else ", ".join(each.best_on),
            ]
            for each in self.laws
        ]

    def lines(self) -> list[str]:
        """Return the table for a terminal."""
        rows = [list(COLUMNS), *self.table()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        blocks = sum(self.checks.values())
        head = f"laws by the runs they predict unseen: {blocks} blocks left out, in {len(self.checks)} ways"
        return [head, *("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)]


def weigh_laws(
    table: pd.DataFrame, rows: Rows, recipe: Recipe, fits: Sequence[Mapping[str, Estimate]]
) -> Evidence | None:
    """Weigh laws by how well they predict the runs left out of refits.

    Args:
        table: The validated table.
        rows: Its rows as they were fitted.
        recipe: The recipe with all laws, which says how many runs a refit needs.
        fits: Estimates by law; each mapping holds laws that stand on one supervised law.

    Returns:
        The weights; None for a single law, or where the table has too few runs or cells to leave any out.
    """
    if sum(law in recipe.laws for each in fits for law in each) < 2:
        return None
    folds = {check: list(masks) for check, masks in cross_validation_folds(table).items()}
    checks, out = _blocks(rows, folds, recipe)
    cell = np.argmax([mask[rows.index] for mask in folds[CELL]], axis=0)[rows.n_supervised :]
    if len(checks) < 2 or len(np.unique(cell)) < MIN_CELLS:
        return None
    predictions: dict[str, BlockPredictions] = {}
    for each in fits:
        predictions |= predict_left_out(each, rows, out)
    block, row = np.nonzero(out[:, rows.n_supervised :])
    density = np.stack([_log_density(found, block, row) for found in predictions.values()])
    return _evidence(tuple(predictions), density, checks, block, cell[row])


def _blocks(rows: Rows, folds: Mapping[str, Iterable[Mask]], recipe: Recipe) -> tuple[list[str], Mask]:
    """Return the check of every block, and the rows (blocks, rows) that it leaves out, whole runs together.

    Blocks that leave too few runs to fit every law are not used.
    """
    checks, out = [], []
    for check, masks in folds.items():
        for mask in masks:
            left = np.isin(rows.group, rows.group[mask[rows.index]])
            kept = rows.take(np.flatnonzero(~left))
            if left.any() and has_enough_runs(kept, recipe):
                checks.append(check)
                out.append(left)
    return checks, np.array(out, dtype=np.bool_).reshape(len(out), len(rows))


def _log_density(found: BlockPredictions, block: Pairs, row: Pairs) -> Array:
    """Return the logarithm of the density of each run left out, (pairs of block and row,)."""
    scale = np.sqrt(found.noise[row] ** 2 + found.variance[block, row])
    z = (found.observed[row] - found.predicted[block, row]) / scale
    constant = gammaln((FREEDOM + 1) / 2) - gammaln(FREEDOM / 2) - 0.5 * np.log(FREEDOM * np.pi)
    return np.asarray(constant - np.log(scale) - (FREEDOM + 1) / 2 * np.log1p(z**2 / FREEDOM))


def _evidence(
    laws: Sequence[str], density: Array, checks: Sequence[str], block: Pairs, cell: Pairs
) -> Evidence:
    """Return the evidence from log densities (laws, pairs) of the runs left out."""
    of_check = {check: checks.count(check) for check in dict.fromkeys(checks)}
    size = np.bincount(block, minlength=len(checks))
    share = np.array([1 / (len(of_check) * of_check[c]) for c in checks]) / size
    weight = share[block]  # (pairs,), summing to 1
    score = density @ weight
    best = int(np.argmax(score))
    deficit = score[best] - score
    error = _clustered_error((density[best] - density - deficit[:, None]) * weight, cell)
    refuted = deficit > REFUTED * error
    weights = np.zeros(len(laws))
    weights[~refuted] = stacking_weights(density[~refuted], weight)
    of_pair = np.array(checks)[block]
    means = {c: density[:, of_pair == c] @ weight[of_pair == c] for c in of_check}
    return Evidence(
        laws=tuple(
            LawEvidence(
                law=law,
                score=float(score[k]),
                deficit=float(deficit[k]),
                deficit_se=float(error[k]),
                refuted=bool(refuted[k]),
                weight=float(weights[k]),
                best_on=tuple(check for check, mean in means.items() if mean[k] == mean.max()),
            )
            for k, law in enumerate(laws)
        ),
        checks=of_check,
        cells=len(np.unique(cell)),
    )


def _clustered_error(deviation: Array, cell: Pairs) -> Array:
    """Return standard errors (laws,) of sums of deviations (laws, pairs) that are dependent in a cell."""
    cells, which = np.unique(cell, return_inverse=True)
    sums = np.stack([np.bincount(which, weights=each) for each in deviation])
    return np.asarray(np.sqrt(len(cells) / (len(cells) - 1) * np.sum(sums**2, axis=1)))


def stacking_weights(log_density: Array, weight: Array) -> Array:
    """Return the weights (laws,) of the mixture of densities with the best weighted mean logarithm.

    Args:
        log_density: (laws, points): the logarithm of each law's density at each point.
        weight: (points,): the weights of the points, summing to 1.
    """
    density = np.exp(log_density - log_density.max(axis=0))
    found = np.full(len(density), 1 / len(density))
    for _ in range(10_000):  # expectation maximization; the objective is concave
        mixture = found[:, None] * density
        updated = (mixture / mixture.sum(axis=0)) @ weight
        moved, found = float(np.max(np.abs(updated - found))), updated
        if moved < 1e-9:
            break
    found = np.where(found < NEGLIGIBLE, 0.0, found)
    return np.asarray(found / found.sum())
