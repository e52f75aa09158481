"""Fit of the constants of repeated data, R_D* and R_N* (Muennighoff et al. 2023), from ``unique_tokens``.

The supervised law and both constants are fitted together, since the parameters that unique tokens call for
follow from the law. Weak priors hold the constants near the published ones, within a factor of e.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from fits.estimation.estimate import fit_model, scalar_law
from fits.estimation.huber import EFFICIENT
from fits.estimation.joint import Recipe
from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import Model, Rows
from scaling.laws import AnySupervisedLaw
from scaling.repeated_data import (
    EXCESS_CONSTANT,
    REPETITION_CONSTANT,
    Repetition,
    excess_params_value,
    repeated_tokens_value,
)

PUBLISHED = np.log([REPETITION_CONSTANT, EXCESS_CONSTANT])
"""Center of the prior of (ln R_D*, ln R_N*), whose standard deviation is 1."""
REPEATS = 2.0
"""Epochs from which a run tells what repetition is worth."""
MIN_REPEATED = 6
"""Supervised runs with as many epochs without which the published constants are kept."""
TWO_SIDED_90 = 1.645


def repeats_data(table: pd.DataFrame) -> bool:
    """Return whether enough supervised runs repeat their data for the constants to be fitted."""
    if "unique_tokens" not in table:
        return False
    used = table[(table["excluded"] == "") & (table["kind"] == "supervised")]
    return int((used["tokens"] >= REPEATS * used["unique_tokens"]).sum()) >= MIN_REPEATED


def fit_repetition(table: pd.DataFrame, recipe: Recipe) -> tuple[pd.DataFrame, Repetition]:
    """Fit R_D* and R_N*, and add ``effective_params`` and ``effective_tokens`` to the table.

    Args:
        table: A validated table for which :func:`repeats_data` holds.
        recipe: How the supervised law is fitted.
    """
    rows = Rows.of(table).of_kind(0)
    unique = _unique(table)[rows.index]
    model = recipe.model(rows, None, None)
    once = np.flatnonzero(unique >= rows.D)
    first = model.with_rows(rows.take(once)) if len(once) >= recipe.free().min_supervised_runs else model
    start = fit_model(first, recipe.objective, starts=recipe.starts)
    x, sigma = np.concatenate([start.theta, PUBLISHED]), float(np.mean(start.sigma))
    for _ in range(2):
        found = least_squares(
            _residuals, x, args=(model, unique, sigma), x_scale="jac", loss="huber", f_scale=EFFICIENT
        )
        x, sigma = found.x, sigma * _robust_sd(found.fun[: len(rows)], len(x))
    jacobian = np.asarray(found.jac, dtype=np.float64)
    error = np.sqrt(np.diag(np.linalg.pinv(jacobian.T @ jacobian, hermitian=True)))[-2:]
    low, best, high = (np.exp(x[-2:] + z * error) for z in (-TWO_SIDED_90, 0.0, TWO_SIDED_90))
    repetition = Repetition(
        tokens=float(best[0]),
        tokens_interval=(float(low[0]), float(high[0])),
        params=float(best[1]),
        params_interval=(float(low[1]), float(high[1])),
        runs=int(np.sum(unique < rows.D)),
    )
    N, D = (table[name].to_numpy(np.float64) for name in ("params", "tokens"))
    law = scalar_law(model.laws(x[None, :-2])[0])
    effective_N, effective_D = _effective(N, D, _unique(table), law, best)
    return table.assign(effective_params=effective_N, effective_tokens=effective_D), repetition


def _residuals(x: Array, model: Model, unique: Array, sigma: float) -> Array:
    """Return residuals of runs and priors, in standard deviations, at (theta, ln R_D*, ln R_N*)."""
    rows, (center, spread) = model.rows, model.prior()
    law = scalar_law(model.laws(x[None, :-2])[0])
    loss = law.loss(*_effective(rows.N, rows.D, unique, law, np.exp(x[-2:])))
    runs = (np.log(loss) - np.log(rows.L)) / sigma
    return np.concatenate([runs, (x[:-2] - center) / spread, x[-2:] - PUBLISHED])


def _effective(
    N: Array, D: Array, unique: Array, law: AnySupervisedLaw, constants: Array
) -> tuple[Array, Array]:
    R_D, R_N = map(float, constants)
    return excess_params_value(N, D, unique, law, R_N), repeated_tokens_value(D, unique, R_D)


def _robust_sd(residual: Array, fitted: int) -> float:
    """Return the standard deviation of residuals, winsorized at 2.5 robust ones."""
    size = np.abs(residual)
    capped = np.minimum(size, 2.5 * 1.4826 * float(np.median(size)))
    return float(np.sqrt(np.sum(capped**2) / max(len(size) - fitted, 1)))


def _unique(table: pd.DataFrame) -> Array:
    """Return the unique tokens of every row; infinite where the table does not say."""
    unique = table["unique_tokens"].to_numpy(np.float64)
    return np.where(np.isfinite(unique) & (unique > 0), unique, np.inf)
