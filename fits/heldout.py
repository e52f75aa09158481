"""Held-out checks: leave runs out, refit the rest, predict what was left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """How well runs that were left out were predicted."""

    rule: str
    """Which runs were left out, in words."""
    law: str
    """The law, or "supervised"."""
    kind: str
    trained: int
    """Rows of this kind that were fitted."""
    runs: tuple[str, ...]
    observed: tuple[float, ...]
    """nats/token"""
    predicted: tuple[float, ...]
    """nats/token"""

    @property
    def errors(self) -> np.ndarray:
        """predicted - observed, nats/token."""
        return np.array(self.predicted) - np.array(self.observed)

    @property
    def rmse(self) -> float:
        """Root mean square error, nats/token."""
        return float(np.sqrt(np.mean(self.errors**2)))

    @property
    def bias(self) -> float:
        """Mean of predicted - observed, nats/token."""
        return float(np.mean(self.errors))

    @property
    def relative(self) -> float:
        """Root mean square of predicted/observed - 1."""
        return float(np.sqrt(np.mean((self.errors / np.array(self.observed)) ** 2)))

    def __str__(self) -> str:
        return (
            f"{self.kind} ({self.law}), {self.rule}: {len(self.runs)} left out, rms error {self.rmse:.4f} nats "
            f"({100 * self.relative:.2f} %), mean {self.bias:+.4f}"
        )


def largest_compute(table: pd.DataFrame, share: float = 0.2) -> np.ndarray:
    """Which rows to leave out, (rows,) of bool: the largest ``share`` of each kind by parameters x tokens.

    Ties at the threshold go together, so a size is never half in.
    """
    compute = (table["params"] * table["tokens"]).to_numpy(np.float64)
    used = (table["excluded"] == "").to_numpy()
    out = np.zeros(len(table), dtype=bool)
    for kind in ("supervised", "distillation"):
        mine = used & (table["kind"] == kind).to_numpy()
        if mine.sum() < 8:
            continue
        threshold = np.quantile(compute[mine], 1 - share)
        chosen = mine & (compute >= threshold * (1 - 1e-9))
        if chosen.sum() <= mine.sum() / 2:
            out |= chosen
    return out
