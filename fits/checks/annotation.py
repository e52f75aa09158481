"""The table with what a fit says of every run: its prediction, residual, and whether it is an outlier."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fits.estimation.estimate import Estimate
from fits.estimation.model import Rows

OUTLIER_SD = 4.0
"""Standard deviations above which a residual is flagged as an outlier; outliers are still fitted."""


def annotated(table: pd.DataFrame, estimates: Mapping[str, Estimate], law: str | None) -> pd.DataFrame:
    """Return the table with predictions of the default law, residuals, and flags for outliers."""
    marked = table.copy()
    rows, first = Rows.of(table), next(iter(estimates.values()))
    n, index = rows.n_supervised, marked.index[rows.index]
    predicted = first.supervised.loss(rows.N, rows.D)
    default = [estimates[law]] if law else []
    for found in default:
        predicted[n:] = found.distilled.loss(rows.N[n:], rows.D[n:], rows.L_T, found.supervised)
    marked["predicted"], marked["residual"], marked["outlier"] = np.nan, np.nan, ""
    marked.loc[index, "predicted"] = predicted
    marked.loc[index, "residual"] = rows.L - predicted
    for found in (first, *(other for other in default if other is not first)):
        deviations = found.residual / found.sigma
        far = np.abs(deviations) > OUTLIER_SD
        marked.loc[marked.index[found.model.rows.index[far]], "outlier"] = [
            f"{abs(d):.1f} sd {'above' if d > 0 else 'below'} the law" for d in deviations[far]
        ]
    return marked
