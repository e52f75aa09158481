"""Averaging of replicates whose noise is far below the residual of the law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fits.estimation.joint import Recipe, fit_laws
from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import Rows
from fits.table.runs import KINDS

REPLICATE_NOISE_RATIO = 0.5
"""Replicates are averaged if their noise is below this share of the residual rms."""
MIN_REPLICATES = 3
"""Least number of replicates that show their noise."""


def average_replicates(rows: Rows, recipe: Recipe) -> tuple[Rows, list[str]]:
    """Average replicates whose errors are shared; return the rows, and a note for each kind averaged.

    Replicates (same kind, size, tokens and teacher) that differ far less than the law's residual measure the
    noise of a configuration, not the misfit of the law; counted one by one they would narrow the intervals.
    """
    configuration = rows.configuration
    if len(rows) - len(np.unique(configuration)) < MIN_REPLICATES:
        return rows, []
    code, notes = len(rows) + np.arange(len(rows)), []
    residual = _first_residual(rows, recipe)
    for number, kind in enumerate(KINDS):
        mine = np.flatnonzero(rows.kind == number)
        if len(mine) - len(np.unique(configuration[mine])) < MIN_REPLICATES:
            continue
        spread, miss = _within_sd(residual[mine], configuration[mine]), np.sqrt(np.mean(residual[mine] ** 2))
        if spread < REPLICATE_NOISE_RATIO * miss:
            code[mine] = configuration[mine]
            notes.append(
                f"{kind} replicates are averaged: they differ by {spread:.2g} rms, but the law's residual is "
                f"{miss:.2g} (on the scale of the fit)"
            )
    return (_geometric_means(rows, code), notes) if notes else (rows, [])


def _first_residual(rows: Rows, recipe: Recipe) -> Array:
    """Return residuals (rows,) of a first fit of the first law; zero for rows that were not fitted."""
    first = replace(recipe, laws=recipe.laws[:1], starts=8)
    found = next(iter(fit_laws(rows, first).values()))
    residual = np.zeros(len(rows))
    residual[-len(found.residual) :] = found.residual
    return residual


def _within_sd(residual: Array, configuration: NDArray[np.intp]) -> float:
    """Return the standard deviation within configurations."""
    _, code, count = np.unique(configuration, return_inverse=True, return_counts=True)
    within = residual - (np.bincount(code, residual) / count)[code]
    return float(np.sqrt(np.sum(within**2) / (len(residual) - len(count))))


def _geometric_means(rows: Rows, code: NDArray[np.intp]) -> Rows:
    """Return one row for each value of ``code`` (rows,): the first, with the geometric mean of losses."""
    _, first, code, count = np.unique(code, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)
    loss = np.exp(np.bincount(code, np.log(rows.L)) / count)
    return replace(rows.take(first[order]), L=loss[order])
