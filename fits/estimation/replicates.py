"""Repeats of one configuration: evidence of their own, or copies of one another?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fits.estimation.joint import Recipe, fit_laws
from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import Rows
from fits.table.runs import KINDS

COPIES = 0.5
"""Repeats that differ by less than this share of what they miss the law by err together."""
LEAST = 3
"""Fewer repeats than this show no spread."""


def together(rows: Rows, recipe: Recipe) -> tuple[Rows, list[str]]:
    """The rows, with repeats that err together averaged into one, and a note where there are any.

    Repeats (same kind, size, tokens and teacher) whose residuals differ far less than they miss the law say
    how well a configuration is measured, not how well the law holds.
    """
    configuration = rows.configuration
    if len(rows) - len(np.unique(configuration)) < LEAST:
        return rows, []
    code, notes = len(rows) + np.arange(len(rows)), []
    residual = _residual(rows, recipe)
    for number, kind in enumerate(KINDS):
        mine = np.flatnonzero(rows.kind == number)
        if len(mine) - len(np.unique(configuration[mine])) < LEAST:
            continue
        spread, miss = _spread(residual[mine], configuration[mine]), np.sqrt(np.mean(residual[mine] ** 2))
        if spread < COPIES * miss:
            code[mine] = configuration[mine]
            notes.append(
                f"each {kind} configuration counts once, with its mean: its repeats differ by {spread:.2g} "
                f"rms, but miss the law by {miss:.2g} (on the scale of the fit)"
            )
    return (_averaged(rows, code), notes) if notes else (rows, [])


def _residual(rows: Rows, recipe: Recipe) -> Array:
    """(rows,): of a first fit of the first law; zero for supervised rows that were not fitted."""
    first = replace(recipe, laws=recipe.laws[:1], starts=8)
    found = next(iter(fit_laws(rows, first).values()))
    residual = np.zeros(len(rows))
    residual[-len(found.residual) :] = found.residual
    return residual


def _spread(residual: Array, configuration: NDArray[np.intp]) -> float:
    """Standard deviation within configurations."""
    _, code, count = np.unique(configuration, return_inverse=True, return_counts=True)
    within = residual - (np.bincount(code, residual) / count)[code]
    return float(np.sqrt(np.sum(within**2) / (len(residual) - len(count))))


def _averaged(rows: Rows, code: NDArray[np.intp]) -> Rows:
    """One row for each value of ``code`` (rows,): the first, with the geometric mean of the losses."""
    _, first, code, count = np.unique(code, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)
    loss = np.exp(np.bincount(code, np.log(rows.L)) / count)
    return replace(rows.take(first[order]), L=loss[order])
