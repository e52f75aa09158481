"""Teacher losses, where a table names a student's teacher instead of giving its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from fits.table.columns.cells import describe_column, run_names
from scaling.errors import InputError

NO_LOSS = "a distillation without its teacher's loss"
MAX_LOSS_SPREAD = 0.02
"""Largest relative difference of a teacher's runs whose losses are averaged."""
TOKENS_TOLERANCE = 0.02
"""Relative tolerance of the tokens of a teacher's checkpoint."""
NOT_FOUND = "its teacher"
"""First words of the reason for excluding a distillation without its teacher."""


def join_teachers(table: pd.DataFrame, unusable: pd.Series[str]) -> tuple[pd.Series[str], list[str]]:
    """Fill ``teacher_loss`` in place from the runs that the column ``teacher`` names.

    For a teacher with several seeds, each student gets the loss of its own seed, else the mean if the losses
    are close.

    Args:
        table: The table.
        unusable: Reason (rows,) why a row is excluded and cannot be a teacher; empty if it can.

    Returns:
        The reason (rows,) why a row lacks its teacher's loss, else empty; and notes.

    Raises:
        InputError: if a teacher's runs differ and no seed identifies the teacher.
    """
    why = pd.Series("", index=table.index)
    asks = table.index[table["teacher"].notna() & table["teacher_loss"].isna()]
    if asks.empty:
        return why, []
    key, notes = _teacher_names(table, list(table.loc[asks, "teacher"].unique()))
    runs = table[unusable == ""]
    runs = runs.assign(teacher_key=key[runs.index]).sort_values("tokens", kind="stable")
    of_teacher = dict(list(runs.groupby("teacher_key", sort=False)))
    tokens = table["teacher_tokens"] if "teacher_tokens" in table else pd.Series(np.nan, index=table.index)
    wanted = list(
        zip(table.loc[asks, "teacher"], table.loc[asks, "seed"], tokens[asks].fillna(0.0), strict=True)
    )
    found: dict[tuple[str, object, float], _TeacherLoss] = {}
    for row, (name, seed, at) in zip(asks, wanted, strict=True):
        if (name, seed, at) not in found:
            own = _rows_at_tokens(of_teacher[name], at) if name in of_teacher else None
            found[name, seed, at] = _teacher_loss(table, row, own, unusable[key == name], seed)
    answers = [found[each] for each in wanted]
    table.loc[asks, "teacher_loss"] = [answer.loss for answer in answers]
    why[asks] = np.array([answer.missing for answer in answers], dtype=object)
    for how in dict.fromkeys(answer.how for answer in answers if answer.how):
        notes.append(f"{sum(answer.how == how for answer in answers)} students have {how}")
    return why, notes


class _TeacherLoss(NamedTuple):
    loss: float = np.nan
    missing: str = ""
    how: str = ""


def _teacher_loss(
    table: pd.DataFrame, row: int, own: pd.DataFrame | None, unusable: pd.Series[str], seed: object
) -> _TeacherLoss:
    """Return the loss of a student's teacher; ``own`` are the teacher's last usable rows, one a seed."""
    name = str(table.at[row, "teacher"])
    if own is None:
        reason = f"cannot be used ({unusable.iloc[0]})" if len(unusable) else "is not in the table"
        return _TeacherLoss(missing=f"{NOT_FOUND} {name!r} {reason}")
    if own.empty:
        return _TeacherLoss(missing=f"{NOT_FOUND} {name!r} has no row at teacher_tokens")
    if len(own) == 1:
        return _TeacherLoss(float(own["loss"].iloc[0]))
    same = own.loc[own["seed"] == seed, "loss"]
    if len(same) == 1:
        return _TeacherLoss(float(same.iloc[0]), how="the loss of their teacher with the same seed")
    return _TeacherLoss(
        _mean_loss(table, row, name, own), how=f"the mean loss of the {len(own)} runs called {name!r}"
    )


def _rows_at_tokens(runs: pd.DataFrame, tokens: float) -> pd.DataFrame:
    """Return the last row of each seed of a teacher, or the one at the tokens that a student gives."""
    if tokens > 0.0:
        runs = runs[np.abs(np.log(runs["tokens"] / tokens)) < TOKENS_TOLERANCE]
    return runs.drop_duplicates(["run", "seed"], keep="last")


def _teacher_names(table: pd.DataFrame, wanted: Sequence[str]) -> tuple[pd.Series[str], list[str]]:
    """Return the column with the teachers' names: ``run``, or another one that has all of them."""
    if table["run"].isin(wanted).any():
        return table["run"], []
    for column in table.columns.difference(["teacher", "run"], sort=False):
        if pd.api.types.is_float_dtype(table[column]) or pd.api.types.is_bool_dtype(table[column]):
            continue
        named = run_names(table[column])
        if set(wanted) <= set(named.dropna()):
            return named, [f"teachers are identified by column {column!r}"]
    return table["run"], []


def _mean_loss(table: pd.DataFrame, row: int, name: str, own: pd.DataFrame) -> float:
    losses = own["loss"]
    if losses.max() > (1 + MAX_LOSS_SPREAD) * losses.min():
        found = ", ".join(f"{loss:.4g}" for loss in losses[:4])
        raise InputError(
            f"row {row + 1}, {describe_column(table, 'teacher')}: {name!r} has {len(own)} runs with "
            f"different losses ({found}), and no seed identifies the teacher; give its loss in a column "
            "teacher_loss, or every run a different name"
        )
    return float(np.exp(np.log(losses).mean()))


def refuse_missing_teachers(table: pd.DataFrame, why: pd.Series[str]) -> None:
    """Reject a table in which every distillation lacks the loss of its teacher."""
    distilled = table["kind"] == "distillation"
    lost = distilled & (why.str.startswith(NOT_FOUND) | (why == NO_LOSS))
    if not lost.any() or (distilled & (why == "")).any():
        return
    raise InputError(_missing_teachers_message(table, why[lost]))


def _missing_teachers_message(table: pd.DataFrame, reasons: pd.Series[str]) -> str:
    if "teacher" not in table or not reasons.str.startswith(NOT_FOUND).any():
        filled = [c for c in ("teacher", "teacher_params", "teacher_tokens", "method") if c in table]
        source = f" (by {describe_column(table, filled[0])})" if filled and "kind" not in filled else ""
        return (
            f"all {len(reasons)} distillations{source} lack their teacher's loss; give it in a column "
            "teacher_loss (--map L_T=...), or remove these rows"
        )
    names = ", ".join(map(repr, dict.fromkeys(table.loc[reasons.index, "teacher"].dropna())))
    runs = ", ".join(map(repr, table["run"].iloc[:3]))
    return (
        f"the teachers of all {len(reasons)} distillations are missing: {describe_column(table, 'teacher')} "
        f"names {names[:200]}, {describe_column(table, 'run')} has {runs}, ...; the first: "
        f"{reasons.iloc[0]}. Give the names of runs (--map run=..., --map teacher=...), or their losses in a "
        "column teacher_loss"
    )
