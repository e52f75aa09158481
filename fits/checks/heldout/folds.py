"""Folds of cross-validation: which distillations each check leaves out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.checks.supervised_design import distinct_levels
from fits.estimation.model import last_tokens

Mask = NDArray[np.bool_]
SIZE, CELL = "size out", "cell out"
WEAK_TO_STRONG, STRONG_TO_WEAK = "weak to strong", "strong to weak"
FEW_TO_MANY, SMALL_TO_LARGE = "few to many tokens", "small to large"
LARGEST_COMPUTE = "largest compute"
"""A size; a size and token count; teachers better than those fitted; worse ones; more tokens than fitted;
models larger than fitted; more compute than fitted."""
LEFT_OUT = 0.35
"""Share of the distillations that a check in one direction leaves out, unless thresholds are given."""


def cross_validation_folds(
    table: pd.DataFrame, thresholds: tuple[float, float, float] | None = None
) -> dict[str, Iterator[Mask]]:
    """Return, for each check, masks (rows,) of what each fold leaves out; checkpoints go with their run.

    Args:
        table: A validated table with distillations.
        thresholds: Teacher loss above which "weak to strong" is fitted, teacher loss below which "strong to
            weak" is, and student tokens below which "few to many tokens" is.
    """
    used = ((table["excluded"] == "") & (table["kind"] == "distillation")).to_numpy()
    N, D = table["params"].to_numpy(np.float64), last_tokens(table)
    L_T = table["teacher_loss"].to_numpy(np.float64)
    weak, strong, few = thresholds or (
        float(np.quantile(L_T[used], LEFT_OUT)),
        float(np.quantile(L_T[used], 1 - LEFT_OUT)),
        float(np.quantile(D[used], 1 - LEFT_OUT)),
    )
    small = float(np.quantile(N[used], 1 - LEFT_OUT))
    size, count = nearest_level(N, used), nearest_level(D, used)
    cells = np.unique(np.stack([size, count])[:, used], axis=1).T
    return {
        SIZE: (used & (size == level) for level in np.unique(size[used])),
        CELL: (used & (size == a) & (count == b) for a, b in cells),
        WEAK_TO_STRONG: iter([used & ~(weak < L_T)]),
        STRONG_TO_WEAK: iter([used & ~(strong > L_T)]),
        FEW_TO_MANY: iter([used & ~(few > D)]),
        SMALL_TO_LARGE: iter([used & (small < N)]),
    }


def nearest_level(values: NDArray[np.float64], used: Mask) -> NDArray[np.intp]:
    """Return the number (rows,) of the distinct level that each value is nearest to."""
    of_level = np.log(distinct_levels(values[used], 1.05))
    return np.asarray(np.argmin(np.abs(np.log(values)[:, None] - of_level), axis=1), dtype=np.intp)
