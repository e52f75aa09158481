"""Ways to make intervals, for ``interval_honesty.py``: what the product does, and what it did before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from fits import fit
from scaling.calibration.calibration import SUPERVISED, Calibration

Array = NDArray[np.float64]
NORMAL = ndtri((np.arange(41) + 0.5) / 41)
"""Quantiles of a standard normal, with which draws are blurred."""


@dataclass(frozen=True)
class Forecast:
    """Predictions of rows, as a point and as draws (draws, rows), in nats/token."""

    center: Array
    draws: Array

    def interval(self, level: float) -> tuple[Array, Array]:
        """The central interval of each row, two arrays (rows,)."""
        low, high = np.quantile(self.draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high


def bootstrap(kept: pd.DataFrame, left: pd.DataFrame, supervised: Calibration | None, draws: int) -> Forecast:
    """The intervals before block cross-validation: draws of the coefficients and the residual spread."""
    found = fit(kept, supervised=supervised, draws=draws, held_out=False).calibration
    N, D = (left[column].to_numpy(np.float64) for column in ("params", "tokens"))
    center, sampled = found.supervised.loss(N, D), found.sampled_supervised()
    spread, noise = sampled.loss(N, D), np.full(len(left), found.residual_sd.get(SUPERVISED, 0.0))
    taught = (left["kind"] == "distillation").to_numpy()
    if taught.any():
        at = N[taught], D[taught], left["teacher_loss"].to_numpy(np.float64)[taught]
        center[taught] = found.law().loss(*at, found.supervised)
        spread[:, taught] = found.sampled_law().loss(*at, sampled)
        noise[taught] = found.residual_sd[found.default or ""]
    blurred = spread[:, None, :] + noise * NORMAL[:, None]
    return Forecast(center, blurred.reshape(-1, len(left)))


METHODS: dict[str, Callable[..., Forecast]] = {"bootstrap": bootstrap}
