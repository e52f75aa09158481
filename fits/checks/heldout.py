"""Held-out checks: leave runs out, refit the rest, predict what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.estimation.estimate import Estimate
from fits.estimation.joint import SUPERVISED, Recipe, fit_laws
from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import Rows, last_tokens
from scaling.errors import InputError

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """How well runs that were left out were predicted."""

    rule: str
    """Which runs were left out, in words."""
    law: str
    """The law, or "supervised"."""
    kind: str
    trained: int
    """Rows of this kind that were fitted; the fewest, where several groups are pooled."""
    runs: tuple[str, ...]
    observed: tuple[float, ...]
    """nats/token"""
    predicted: tuple[float, ...]
    """nats/token"""

    @property
    def errors(self) -> Array:
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
        of = self.kind if self.law == SUPERVISED else f"{self.kind} ({self.law})"
        return (
            f"{of}, {self.rule}: {len(self.runs)} left out, "
            f"rms error {self.rmse:.4f} nats ({100 * self.relative:.2f} %), mean {self.bias:+.4f}"
        )


RULES = {"largest compute": "compute", "largest sizes": "size", "best teachers": "teacher"}
"""What extrapolation asks: a bigger budget, a bigger model, a better teacher; by the words of the report."""


def farthest(table: pd.DataFrame, by: str, share: float = 0.2) -> Mask:
    """Which rows to leave out, (rows,) of bool: the farthest ``share`` of each kind of run.

    ``by`` is "compute" (parameters x tokens), "size" (parameters) or "teacher" (the lowest teacher losses).
    A run goes with all of its checkpoints, by its last. Ties at the threshold go together, so a level is
    never half in. A kind of fewer than 8 rows, or one of which more than half would go, is left whole.
    """
    if by == "teacher":
        measure = -table["teacher_loss"].to_numpy(np.float64)
    else:
        measure = table["params"].to_numpy(np.float64) * (last_tokens(table) if by == "compute" else 1.0)
    used = (table["excluded"] == "").to_numpy()
    out = np.zeros(len(table), dtype=bool)
    for kind in ("supervised", "distillation"):
        mine = used & (table["kind"] == kind).to_numpy() & np.isfinite(measure)
        if mine.sum() < 8:
            continue
        threshold = float(np.quantile(measure[mine], 1 - share))
        chosen = mine & (measure >= threshold - 1e-9 * abs(threshold))
        if chosen.sum() <= mine.sum() / 2:
            out |= chosen
    return out


def extrapolations(
    table: pd.DataFrame, rows: Rows, recipe: Recipe, near: Mapping[str, Estimate]
) -> tuple[HeldOut, ...]:
    """Every rule of ``RULES`` that the table can carry; ``rows`` are those that were fitted."""
    found: list[HeldOut] = []
    for rule, by in RULES.items():
        out = farthest(table, by)
        if out.any() and enough(_without(rows, out), recipe):
            found += hold_out(table, rows, out, rule, recipe, near)
    return tuple(found)


def enough(rows: Rows, recipe: Recipe) -> bool:
    """Whether there are the least runs that the recipe's free coefficients need."""
    free = recipe.free()
    distilled = not recipe.laws or rows.distillations >= free.least_distillations
    return distilled and rows.supervised >= free.least_supervised


def _without(rows: Rows, out: Mask) -> Rows:
    """The rows that share no run with those of a mask over their table."""
    return rows.take(np.flatnonzero(~np.isin(rows.group, rows.group[out[rows.index]])))


def leave_groups_out(
    table: pd.DataFrame, column: str, recipe: Recipe, near: Mapping[str, Estimate] | None = None
) -> tuple[HeldOut, ...]:
    """Leave out every value of a column in turn and pool the errors by law.

    Raises InputError if the table has no such column, it has fewer than two values, or leaving one out
    leaves too little.
    """
    values = list(table[column].dropna().unique()) if column in table else []
    if len(values) < 2:
        raise InputError(f"cannot leave groups out by {column!r}: the table has {len(values)} values of it")
    parts: dict[str, list[HeldOut]] = {}
    rows = Rows.of(table)
    for value in values:
        out = (table[column] == value).to_numpy()
        for held in hold_out(table, rows, out, f"each {column}", recipe, near):
            parts.setdefault(held.law, []).append(held)
    return tuple(
        replace(
            of_law[0],
            runs=tuple(run for held in of_law for run in held.runs),
            observed=tuple(loss for held in of_law for loss in held.observed),
            predicted=tuple(loss for held in of_law for loss in held.predicted),
            trained=min(held.trained for held in of_law),
        )
        for of_law in parts.values()
    )


def hold_out(
    table: pd.DataFrame,
    rows: Rows,
    out: Mask,
    rule: str,
    recipe: Recipe,
    near: Mapping[str, Estimate] | None = None,
) -> tuple[HeldOut, ...]:
    """Refit every law of the recipe to ``rows`` without those of the mask ``out``, and predict these.

    ``out`` is over the table. What else belongs to a run that is left out, as its other checkpoints do,
    is neither fitted nor predicted. ``near`` gives the estimates on all rows: further starts.

    Raises InputError if too little is left to fit.
    """
    chosen, kept = out[rows.index], _without(rows, out)
    if not enough(kept, recipe):
        raise InputError(
            f"left out {rule}: {int(chosen.sum())} rows go, and the other checkpoints of their runs; the "
            f"{kept.supervised} supervised runs and {kept.distillations} distillations left are too few"
        )
    return predictions(table, rows.take(np.flatnonzero(chosen)), fit_laws(kept, recipe, near), rule)


def predictions(
    table: pd.DataFrame, left: Rows, estimates: Mapping[str, Estimate], rule: str
) -> tuple[HeldOut, ...]:
    """What every estimate says of rows that it was not fitted to."""
    n = left.supervised
    results: list[HeldOut] = []
    for law, found in estimates.items():
        supervised, fitted = found.supervised, found.model.rows
        if n and found.model.given is None:
            predicted = supervised.loss(left.N[:n], left.D[:n])
            here = slice(0, n)
            results.append(_left_out(table, left, here, predicted, rule, SUPERVISED, fitted.supervised))
        if left.distillations and law != SUPERVISED:
            predicted = found.distilled.loss(left.N[n:], left.D[n:], left.L_T, supervised)
            here = slice(n, len(left))
            results.append(_left_out(table, left, here, predicted, rule, law, fitted.distillations))
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
