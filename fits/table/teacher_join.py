"""Losses of teachers, where a table names a student's teacher instead of giving its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from fits.table.cells import column_called, identities
from scaling.errors import InputError

NO_LOSS = "a distillation without its teacher's loss"
CLOSE = 0.02
"""Losses of one teacher's runs within this factor are averaged where nothing says which taught whom."""
SAME_TOKENS = 0.02
"""A teacher's checkpoint has the tokens that its student gives to within this factor."""
LOST = "its teacher"
"""What the reason of every distillation begins with whose teacher is not to be found."""


def join_teachers(table: pd.DataFrame, unusable: pd.Series[str]) -> tuple[pd.Series[str], list[str]]:
    """Fill ``teacher_loss`` in place from the runs that the column ``teacher`` names.

    ``unusable`` says of each row why it cannot be used, and so cannot be a teacher. A teacher with several
    seeds lends each student the loss of the student's own seed; else the mean, where they are close.

    Returns why rows have no teacher's loss, empty where they do or name none; and notes on what was done.

    Raises InputError where a teacher's runs differ and nothing says which one taught.
    """
    why = pd.Series("", index=table.index)
    asks = table.index[table["teacher"].notna() & table["teacher_loss"].isna()]
    if asks.empty:
        return why, []
    key, notes = _key(table, list(table.loc[asks, "teacher"].unique()))
    runs = table[unusable == ""]
    runs = runs.assign(teacher_key=key[runs.index]).sort_values("tokens", kind="stable")
    of_teacher = dict(list(runs.groupby("teacher_key", sort=False)))
    tokens = table["teacher_tokens"] if "teacher_tokens" in table else pd.Series(np.nan, index=table.index)
    wanted = list(
        zip(table.loc[asks, "teacher"], table.loc[asks, "seed"], tokens[asks].fillna(0.0), strict=True)
    )
    found: dict[tuple[str, object, float], _Teacher] = {}
    for row, (name, seed, at) in zip(asks, wanted, strict=True):
        if (name, seed, at) not in found:
            own = _at(of_teacher[name], at) if name in of_teacher else None
            found[name, seed, at] = _teacher(table, row, own, unusable[key == name], seed)
    answers = [found[each] for each in wanted]
    table.loc[asks, "teacher_loss"] = [answer.loss for answer in answers]
    why[asks] = np.array([answer.missing for answer in answers], dtype=object)
    for how in dict.fromkeys(answer.how for answer in answers if answer.how):
        notes.append(f"{sum(answer.how == how for answer in answers)} students have {how}")
    return why, notes


class _Teacher(NamedTuple):
    loss: float = np.nan
    missing: str = ""
    how: str = ""


def _teacher(
    table: pd.DataFrame, row: int, own: pd.DataFrame | None, unusable: pd.Series[str], seed: object
) -> _Teacher:
    """The loss that a student's teacher has: ``own`` are the teacher's last usable rows, one a seed."""
    name = str(table.at[row, "teacher"])
    if own is None:
        reason = f"cannot be used ({unusable.iloc[0]})" if len(unusable) else "is not in the table"
        return _Teacher(missing=f"{LOST} {name!r} {reason}")
    if own.empty:
        return _Teacher(missing=f"{LOST} {name!r} has no row at teacher_tokens")
    if len(own) == 1:
        return _Teacher(float(own["loss"].iloc[0]))
    same = own.loc[own["seed"] == seed, "loss"]
    if len(same) == 1:
        return _Teacher(float(same.iloc[0]), how="the loss that their teacher has with their own seed")
    return _Teacher(_mean(table, row, name, own), how=f"the mean loss of the {len(own)} runs called {name!r}")


def _at(runs: pd.DataFrame, tokens: float) -> pd.DataFrame:
    """Of each seed of a teacher, the last row, or the one at the tokens that a student gives."""
    if tokens > 0.0:
        runs = runs[np.abs(np.log(runs["tokens"] / tokens)) < SAME_TOKENS]
    return runs.drop_duplicates(["run", "seed"], keep="last")


def _key(table: pd.DataFrame, wanted: Sequence[str]) -> tuple[pd.Series[str], list[str]]:
    """The column whose values are the teachers' names: ``run``, or another one that holds them all."""
    if table["run"].isin(wanted).any():
        return table["run"], []
    for column in table.columns.difference(["teacher", "run"], sort=False):
        if pd.api.types.is_float_dtype(table[column]) or pd.api.types.is_bool_dtype(table[column]):
            continue
        named = identities(table[column])
        if set(wanted) <= set(named.dropna()):
            return named, [f"teachers are the runs that column {column!r} names"]
    return table["run"], []


def _mean(table: pd.DataFrame, row: int, name: str, own: pd.DataFrame) -> float:
    losses = own["loss"]
    if losses.max() > (1 + CLOSE) * losses.min():
        found = ", ".join(f"{loss:.4g}" for loss in losses[:4])
        raise InputError(
            f"row {row + 1}, {column_called(table, 'teacher')}: {name!r} has {len(own)} runs with different "
            f"losses ({found}), and no seed says which one taught; give the loss in a column teacher_loss, "
            "or every run a name of its own"
        )
    return float(np.exp(np.log(losses).mean()))


def refuse_lost(table: pd.DataFrame, why: pd.Series[str]) -> None:
    """Refuse a table in which every distillation lacks the loss of its teacher."""
    distilled = table["kind"] == "distillation"
    lost = distilled & (why.str.startswith(LOST) | (why == NO_LOSS))
    if not lost.any() or (distilled & (why == "")).any():
        return
    raise InputError(_all_lost(table, why[lost]))


def _all_lost(table: pd.DataFrame, reasons: pd.Series[str]) -> str:
    if "teacher" not in table or not reasons.str.startswith(LOST).any():
        filled = [c for c in ("teacher", "teacher_params", "teacher_tokens", "method") if c in table]
        told = f" (as {column_called(table, filled[0])} says)" if filled and "kind" not in filled else ""
        return (
            f"all {len(reasons)} distillations{told} are without their teacher's loss; give it in a column "
            "teacher_loss (--map L_T=...), or leave these rows out"
        )
    names = ", ".join(map(repr, dict.fromkeys(table.loc[reasons.index, "teacher"].dropna())))
    runs = ", ".join(map(repr, table["run"].iloc[:3]))
    return (
        f"all {len(reasons)} distillations lose their teacher: {column_called(table, 'teacher')} names "
        f"{names[:200]}, {column_called(table, 'run')} has {runs}, ...; the first: {reasons.iloc[0]}. Give "
        "the names of runs (--map run=..., --map teacher=...), or their losses in a column teacher_loss"
    )
