"""Held-out checks: leave runs out, refit the rest, predict what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fits.estimate import Estimate
from fits.joint import SUPERVISED, Recipe, fit_laws
from fits.model import Rows
from fits.solver import Array


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
        return np.asarray(np.array(self.predicted) - np.array(self.observed))

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
            f"{self.kind} ({self.law}), {self.rule}: {len(self.runs)} left out, "
            f"rms error {self.rmse:.4f} nats ({100 * self.relative:.2f} %), mean {self.bias:+.4f}"
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


def hold_out(
    table: pd.DataFrame,
    out: np.ndarray,
    rule: str,
    recipe: Recipe,
    near: Mapping[str, Estimate] | None = None,
) -> tuple[HeldOut, ...]:
    """Refit every law of the recipe without the rows ``out`` (rows,) of bool, and predict those rows.

    ``near`` gives the estimates on the whole table: their coordinates become further starts.
    """
    used = (table["excluded"] == "").to_numpy()
    rows = Rows.of(table.assign(excluded=np.where(used & ~out, "", "held out")))
    left = Rows.of(table.assign(excluded=np.where(used & out, "", "fitted")))
    n = left.supervised
    results: list[HeldOut] = []
    for law, found in fit_laws(rows, recipe, near).items():
        supervised = found.supervised
        if n and found.model.given is None:
            predicted = supervised.loss(left.N[:n], left.D[:n])
            results.append(_left_out(table, left, slice(0, n), predicted, rule, SUPERVISED, rows.supervised))
        if left.distillations:
            predicted = found.distilled.loss(left.N[n:], left.D[n:], left.L_T, supervised)
            here = slice(n, len(left))
            results.append(_left_out(table, left, here, predicted, rule, law, rows.distillations))
    return tuple(results)


def _left_out(
    table: pd.DataFrame, left: Rows, here: slice, predicted: Array, rule: str, law: str, trained: int
) -> HeldOut:
    return HeldOut(
        rule=rule,
        law=law,
        kind=SUPERVISED if law == SUPERVISED else "distillation",
        trained=trained,
        runs=tuple(table["run"].iloc[left.index[here]]),
        observed=tuple(map(float, left.L[here])),
        predicted=tuple(map(float, predicted)),
    )
