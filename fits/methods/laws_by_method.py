"""Laws of any measured number, one for each method, and their differences from a control's law.

:mod:`fits.methods.compare` says what a method is worth under one law that all share. Here every method has
its own law, of the loss or of another column such as the fraction of variance unexplained, so that it can be
asked which of its coefficients a method changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fits.estimation.estimate import Objective
from fits.estimation.joint import SUPERVISED
from fits.estimation.levenberg_marquardt import Array
from scaling.errors import InputError
from scaling.laws import SupervisedLaw
from scaling.reports.plan_text import text_table

if TYPE_CHECKING:
    from fits.fitting import Fit

COEFFICIENTS = {
    "E": "limit of large models and much data",
    "size": "A N^-alpha at the geometric mean of sizes",
    "alpha": "exponent of size",
    "tokens": "B D^-beta at the geometric mean of tokens",
    "beta": "exponent of tokens",
    "limit": "E and the term of tokens: limit of large models, also where few token counts cannot part them",
}
"""Coefficients that are compared; amplitudes in the middle of the runs, where they are determined best."""
SHOWN = ("limit", "alpha")
"""Coefficients whose differences are printed."""
MIN_CELLS = 6
"""Least number of different pairs of size and tokens for five coefficients."""
LEVEL = 0.95
"""Level of intervals: of differences, which are read as tests at 5 %. Those of predictions are 90 %."""
STARTS = 12


@dataclass(frozen=True, kw_only=True)
class LawsByMethod:
    """Laws y = E + A N^-alpha + B D^-beta of several methods, and their differences from the control's.

    >>> import fits
    >>> import sweeps
    >>> runs = sweeps.shipped("methods")
    >>> runs = runs[(runs["teacher_params"] > 1e5) & runs["method"].isin(["forward-kl", "taid"])]
    >>> found = fits.laws_by_method(runs, draws=20)
    >>> found.control, found.to_frame()["method"].unique().tolist()
    ('forward-kl', ['forward-kl', 'taid'])
    """

    column: str
    """Column that the laws are of."""
    control: str
    params: float
    """Geometric mean of the runs' sizes."""
    tokens: float
    """Geometric mean of their tokens."""
    coefficients: pd.DataFrame
    """One row for each method and coefficient: value, interval, difference from the control, its interval."""
    misfit: dict[str, float]
    """Rms residual of ln y from its law, by method."""
    left_out: tuple[str, ...]
    """Methods with too few runs for a law."""

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each method and coefficient, with 95 % intervals; differences are NaN for the
        control."""
        return self.coefficients

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; unknown values are None."""
        rows = self.coefficients.to_dict("records")
        return {
            "column": self.column,
            "control": self.control,
            "params": self.params,
            "tokens": self.tokens,
            "level": LEVEL,
            "coefficients": [{k: None if v != v else v for k, v in row.items()} for row in rows],
            "misfit": self.misfit,
            "left_out": list(self.left_out),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and cells for a person: a row a method, with the difference from the control."""
        names = list(COEFFICIENTS)
        header = ["method", *names, *(f"{name} - control" for name in SHOWN), "misfit"]
        cells = []
        for method, misfit in self.misfit.items():
            rows = self.coefficients[self.coefficients["method"] == method].to_dict("records")
            of = {row["coefficient"]: row for row in rows}
            values = [f"{of[name]['value']:.3g}" for name in names]
            apart = [_difference(of[name]) for name in SHOWN]
            cells.append([method, *values, *apart, f"{misfit:.1%}"])
        return header, cells

    def __str__(self) -> str:
        title = f"Laws of {self.column} by method; differences from {self.control} with 95 % intervals"
        notes = [f"note: {method} has too few runs for a law" for method in self.left_out]
        return "\n".join([title, "", *text_table(*self.table()), *notes])


def laws_by_method(
    runs: pd.DataFrame,
    column: str = "loss",
    control: str | None = None,
    *,
    draws: int = 400,
    seed: int = 0,
) -> LawsByMethod:
    """Fit a law of ``column`` to the runs of each method, and compare its coefficients with the control's.

    The law is that of supervised runs with gamma = 1, fitted to ln y by least squares without priors, which
    are about losses. Residuals are resampled, the same of each method, so that what methods share cancels in
    the differences. Which teacher taught is not looked at: give the runs of one.

    Args:
        runs: One row a run, with columns ``method``, ``params``, ``tokens`` and ``column``; runs without a
            method count as supervised.
        column: Number that the law is of: positive, falling with size and tokens.
        control: Method that others are compared with; forward-kl by default, or the first.
        draws: Bootstrap draws of each law.
        seed: Seed of starts and draws.

    Returns:
        The laws, the control's first.

    Raises:
        InputError: if a column is missing, values or teachers do not fit, or methods are too few.

    >>> import fits
    >>> import sweeps
    >>> runs = sweeps.shipped("methods")
    >>> runs = runs[(runs["teacher_params"] > 1e5) & runs["method"].isin(["forward-kl", "skew-kl"])]
    >>> frame = fits.laws_by_method(runs, draws=20).to_frame().query("coefficient == 'alpha'")
    >>> frame["method"].tolist(), frame["difference"].isna().tolist()
    (['forward-kl', 'skew-kl'], [True, False])
    """
    table = _checked(runs, column)
    groups = {str(name): each for name, each in table.groupby("method", sort=True)}
    enough = {k: v for k, v in groups.items() if len(v.drop_duplicates(["params", "tokens"])) >= MIN_CELLS}
    control = control or ("forward-kl" if "forward-kl" in enough else next(iter(enough), ""))
    if control not in enough or len(enough) < 2:
        raise InputError(
            f"laws of {column} need two methods with {MIN_CELLS} pairs of size and tokens each, the control "
            f"{control or '(none)'} among them; found {', '.join(enough) or 'none'}"
        )
    N, D = (float(np.exp(np.log(table[name]).mean())) for name in ("params", "tokens"))
    fitted = {name: _law(each, column, draws, seed) for name, each in enough.items()}
    found = {name: _coefficients(fit, N, D) for name, fit in fitted.items()}
    order = [control, *(name for name in found if name != control)]
    alike = {name: _same_design(enough[name], enough[control]) for name in order}
    rows = [row for name in order for row in _rows(name, found[name], found[control], alike[name])]
    return LawsByMethod(
        column=column,
        control=control,
        params=N,
        tokens=D,
        coefficients=pd.DataFrame(rows),
        misfit={name: float(np.sqrt(np.mean(fitted[name].primary_estimate.residual ** 2))) for name in order},
        left_out=tuple(name for name in groups if name not in enough),
    )


def _checked(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    for name in ("params", "tokens", column):
        if name not in runs:
            raise InputError(f"no column {name!r}; the table has {', '.join(map(str, runs.columns))}")
    values = runs[column].to_numpy(np.float64)
    for row in np.flatnonzero((values <= 0.0) | np.isinf(values))[:1]:
        raise InputError(f"row {row + 1}, column {column!r}: {values[row]:g}, not a positive number")
    table = runs.assign(method=runs["method"].fillna(SUPERVISED) if "method" in runs else SUPERVISED)
    table = table[table[column].notna()]
    if "teacher" in table and table["teacher"].nunique() > 1:
        raise InputError(
            f"the runs with {column} have {table['teacher'].nunique()} teachers; give those of one, such as "
            "runs[runs['teacher'] == ...]"
        )
    keys = [name for name in ("params", "tokens", "seed") if name in table]
    return table.sort_values(keys, kind="stable", ignore_index=True)


def _law(runs: pd.DataFrame, column: str, draws: int, seed: int) -> Fit:
    from fits.fitting import fit

    kept = [name for name in ("params", "tokens", "seed") if name in runs]
    table = runs[kept].assign(kind="supervised", loss=runs[column].to_numpy())
    objective = Objective(delta=float("inf"), priors=False)
    return fit(
        table, gamma=1.0, objective=objective, starts=STARTS, draws=draws, resample="residual",
        held_out=False, seed=seed,
    )  # fmt: skip


def _coefficients(fit: Fit, N: float, D: float) -> dict[str, tuple[float, Array]]:
    """Return the best value and the draws of each coefficient of :data:`COEFFICIENTS`."""
    best, drawn = fit.supervised, fit.draws[SUPERVISED]
    assert isinstance(best, SupervisedLaw)
    values = {name: (float(getattr(best, name)), drawn[name]) for name in ("E", "alpha", "beta")}
    size = best.A * N**-best.alpha, drawn["A"] * N ** -drawn["alpha"]
    tokens = best.B * D**-best.beta, drawn["B"] * D ** -drawn["beta"]
    limit = best.E + tokens[0], drawn["E"] + tokens[1]
    made = values | {
        name: (float(value), draws)
        for name, (value, draws) in {"size": size, "tokens": tokens, "limit": limit}.items()
    }
    return {name: made[name] for name in COEFFICIENTS}


def _same_design(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Return True if row i of both has the same size, tokens and seed, so that their residuals are paired."""
    names = [name for name in ("params", "tokens", "seed") if name in one]
    return len(one) == len(other) and bool((one[names].to_numpy() == other[names].to_numpy()).all())


def _rows(
    method: str,
    own: dict[str, tuple[float, Array]],
    control: dict[str, tuple[float, Array]],
    paired: bool,
) -> Iterator[dict[str, Any]]:
    for name, (value, draws) in own.items():
        low, high = _quantiles(draws)
        of_control, drawn = control[name]
        apart = draws - (drawn if paired else drawn[::-1])  # of other designs, draws are independent
        apart_low, apart_high = _quantiles(apart)
        same = own is control
        yield {
            "method": method,
            "coefficient": name,
            "value": value,
            "low": low,
            "high": high,
            "difference": np.nan if same else value - of_control,
            "difference_low": np.nan if same else apart_low,
            "difference_high": np.nan if same else apart_high,
        }


def _quantiles(draws: Array) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)


def _difference(row: dict[Any, Any]) -> str:
    if np.isnan(row["difference"]):
        return ""
    return f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})"
