"""Held-out checks: leave runs out, refit the rest, predict the runs left out."""

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
    """Predictions of held-out runs."""

    rule: str
    """Name of the hold-out rule."""
    law: str
    """Name of the distillation law, or "supervised"."""
    kind: str
    trained: int
    """Number of fitted rows of this kind; the least over pooled groups."""
    runs: tuple[str, ...]
    observed: tuple[float, ...]
    """Observed losses, nats/token."""
    predicted: tuple[float, ...]
    """Predicted losses, nats/token."""
    inside: int | None = None
    """Number of observed losses inside 90 % intervals of the refit; None where these were not made."""

    @property
    def errors(self) -> Array:
        """Errors (runs,), predicted - observed, nats/token."""
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
        mean = round(self.bias, 4) + 0.0  # not -0
        inside = "" if self.inside is None else f", {self.inside} inside 90 %"
        return (
            f"{of}, {self.rule}: {len(self.runs)} left out{inside}, "
            f"rms error {self.rmse:.4f} nats ({100 * self.relative:.2f} %), mean {mean:+.4f}"
        )


EXTRAPOLATIONS = {
    "largest compute": ("compute", 0.2),
    "dearest third": ("compute", 0.35),
    "largest sizes": ("size", 0.2),
    "best teachers": ("teacher", 0.2),
    "weakest teachers": ("weak teacher", 0.2),
}
"""Extrapolation rules by their name in the report: the measure, and the share of the runs left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Runs that were left out together, and the laws refitted without them."""

    rule: str
    left: Rows
    estimates: Mapping[str, Estimate]

    @property
    def supervised_error(self) -> float:
        """Root mean square error of ln loss on the supervised runs of the block."""
        left, law = self.left.of_kind(0), next(iter(self.estimates.values())).supervised
        return float(np.sqrt(np.mean(np.log(left.L / law.loss(left.N, left.D)) ** 2)))


def extrapolation_mask(table: pd.DataFrame, by: str, share: float = 0.2) -> Mask:
    """Return a mask (rows,) of the farthest ``share`` of each kind of run.

    ``by`` is "compute" (parameters x tokens), "size" (parameters), "teacher" (the lowest teacher losses) or
    "weak teacher" (the highest).
    A run is left out with all of its checkpoints, judged by the last. Ties at the threshold are left out
    together. A kind with fewer than 8 rows, or of which more than half would be left out, stays whole.
    """
    if "teacher" in by:
        measure = table["teacher_loss"].to_numpy(np.float64) * (-1.0 if by == "teacher" else 1.0)
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


def leave_blocks_out(
    table: pd.DataFrame, rows: Rows, recipe: Recipe, warm_starts: Mapping[str, Estimate]
) -> tuple[Block, ...]:
    """Apply every rule of ``EXTRAPOLATIONS`` that leaves enough runs; ``rows`` are those that were fitted."""
    found: list[Block] = []
    seen: set[bytes] = set()  # two rules may leave out the same runs
    for rule, (by, share) in EXTRAPOLATIONS.items():
        out = extrapolation_mask(table, by, share)
        chosen, kept = out[rows.index], _rows_without_runs(rows, out)
        if chosen.any() and chosen.tobytes() not in seen and has_enough_runs(kept, recipe):
            seen.add(chosen.tobytes())
            estimates = fit_laws(kept, recipe.without(rule), warm_starts)
            found.append(Block(rule=rule, left=rows.take(np.flatnonzero(chosen)), estimates=estimates))
    return tuple(found)


def has_enough_runs(rows: Rows, recipe: Recipe) -> bool:
    """Return True if there are enough runs for the free coefficients of the recipe."""
    free = recipe.free()
    distilled = not recipe.laws or rows.n_distillations >= free.min_distillation_runs
    return distilled and rows.n_supervised >= free.min_supervised_runs


def _rows_without_runs(rows: Rows, out: Mask) -> Rows:
    """Return the rows that share no run with those of a mask over the table."""
    return rows.take(np.flatnonzero(~np.isin(rows.group, rows.group[out[rows.index]])))


def leave_groups_out(
    table: pd.DataFrame, column: str, recipe: Recipe, warm_starts: Mapping[str, Estimate] | None = None
) -> tuple[HeldOut, ...]:
    """Leave out every value of a column in turn and pool the errors by law.

    Raises:
        InputError: if the column is missing or has fewer than two values, or too little is left to fit.
    """
    values = list(table[column].dropna().unique()) if column in table else []
    if len(values) < 2:
        raise InputError(f"cannot leave groups out by {column!r}: the table has {len(values)} values of it")
    parts: dict[str, list[HeldOut]] = {}
    rows = Rows.of(table)
    for value in values:
        out = (table[column] == value).to_numpy()
        for held in hold_out(table, rows, out, f"each {column}", recipe, warm_starts):
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
    warm_starts: Mapping[str, Estimate] | None = None,
) -> tuple[HeldOut, ...]:
    """Refit every law of the recipe without the rows of a mask, and predict those rows.

    Other checkpoints of a run that is left out are neither fitted nor predicted.

    Args:
        table: The validated table.
        rows: The rows that were fitted.
        out: Mask (rows of the table,) of the rows to leave out.
        rule: Name of the hold-out rule.
        recipe: The laws and options.
        warm_starts: Estimates on all rows, used as further starts.

    Raises:
        InputError: if too little is left to fit.
    """
    chosen, kept = out[rows.index], _rows_without_runs(rows, out)
    if not has_enough_runs(kept, recipe):
        raise InputError(
            f"{rule} left out: {int(chosen.sum())} rows and the other checkpoints of their runs are removed; "
            f"the remaining {kept.n_supervised} supervised runs and {kept.n_distillations} distillations are "
            "too few"
        )
    return predictions(table, rows.take(np.flatnonzero(chosen)), fit_laws(kept, recipe, warm_starts), rule)


def predictions(
    table: pd.DataFrame, left: Rows, estimates: Mapping[str, Estimate], rule: str
) -> tuple[HeldOut, ...]:
    """Predict rows that were not fitted, with every estimate."""
    n = left.n_supervised
    results: list[HeldOut] = []
    for law, found in estimates.items():
        supervised, fitted = found.supervised, found.model.rows
        if n and found.model.given_theta is None:
            predicted = supervised.loss(left.N[:n], left.D[:n])
            here = slice(0, n)
            results.append(_held_out(table, left, here, predicted, rule, SUPERVISED, fitted.n_supervised))
        if left.n_distillations and law != SUPERVISED:
            predicted = found.distilled.loss(left.N[n:], left.D[n:], left.L_T, supervised)
            here = slice(n, len(left))
            results.append(_held_out(table, left, here, predicted, rule, law, fitted.n_distillations))
    return tuple(results)


def _held_out(
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
