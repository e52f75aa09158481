"""Power law between the multipliers of methods and a number that each method has.

Under the hypothesis that weights of overlap J act as J^2 times the parameters (:mod:`scaling.perceptron`),
the multipliers on parameters of methods that constrain weights are J^k with k = 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from fits.methods.compare import compare_methods
from fits.methods.multiplier import MIN_CONFIGURATIONS, QUANTILES
from scaling.errors import InputError

LAW_DRAWS = 2
"""Bootstrap draws of a comparison of which only the estimate is used: the least that there may be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiplierExponent:
    """Exponent k in multiplier = number^k, over some methods."""

    exponent: float
    low: float
    high: float
    """Ends of the 90 % interval."""
    configurations: int
    """Number of configurations (size, tokens) that the interval rests on."""

    def __contains__(self, exponent: float) -> bool:
        return self.low <= exponent <= self.high

    def __str__(self) -> str:
        return f"{self.exponent:.2f} (90 % interval {self.low:.2f} to {self.high:.2f})"


def multiplier_exponent(
    runs: pd.DataFrame,
    numbers: Mapping[str, float],
    control: str,
    multiplier: str = "params",
    *,
    seed: int = 0,
) -> MultiplierExponent:
    """Estimate k in multiplier = number^k by least squares of logarithms, through (1, 1).

    The interval is a jackknife over configurations, as Student's t: the whole estimate, the shared law
    included, is repeated with each left out.

    Args:
        runs: One row a run, as :func:`fits.compare_methods` takes it.
        numbers: Number of each method that counts, relative to the control's.
        control: Method that the multipliers are against.
        multiplier: "params", "tokens" or "compute".
        seed: Seed of the fits' starts.

    Raises:
        InputError: For numbers that are not positive or all 1, fewer than three configurations, a method
            that the table lacks, or a table that cannot be compared.
    """
    logs = {method: float(np.log(number)) for method, number in numbers.items() if number > 0}
    if len(logs) < len(numbers) or not any(logs.values()):
        raise InputError(f"numbers: must be positive, and one of them not 1; found {dict(numbers)}")
    if missing := sorted(set(numbers) - set(runs["method"].dropna())):
        raise InputError(f"numbers: no run of {', '.join(missing)}")
    used = runs[runs["method"].isin([control, *numbers])]
    cell = used.groupby(["params", "tokens"]).ngroup()
    count = int(cell.nunique())
    if count < MIN_CONFIGURATIONS:
        raise InputError(
            f"{count} configurations of size and tokens; an interval needs {MIN_CONFIGURATIONS} at least"
        )
    whole = _exponent(used, logs, control, multiplier, seed)
    left_out = [_exponent(used[cell != each], logs, control, multiplier, seed) for each in range(count)]
    error = np.sqrt((count - 1) * np.var(left_out))
    reach = float(student_t.ppf(QUANTILES[1], count - 1) * error)
    return MultiplierExponent(exponent=whole, low=whole - reach, high=whole + reach, configurations=count)


def _exponent(
    runs: pd.DataFrame, logs: Mapping[str, float], control: str, multiplier: str, seed: int
) -> float:
    found = compare_methods(runs, control, multiplier, draws=LAW_DRAWS, seed=seed)
    x = np.array([logs[each.method] for each in found.methods])
    y = np.log([each.multiplier for each in found.methods])
    return float(x @ y / (x @ x))
