"""Sizes of mixtures of experts: active parameters, which a token meets and FLOPs count, and total ones."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from fits.table.columns.cells import HEADERS, describe_column
from scaling.errors import InputError

ACTIVE, TOTAL = "active", "total"
COLUMNS = {ACTIVE: "active_params", TOTAL: "total_params"}
SIZE = "size"
"""Attribute of a table: the size that its column ``params`` holds, where it has both."""
SAME_RATIO = 1.001
"""Ratio of total to active parameters that varies by less than this factor is one ratio."""


def fill_params(table: pd.DataFrame, mapped: Collection[str]) -> list[str]:
    """Fill the column ``params`` of mixtures of experts with active parameters, in place; return notes.

    A column ``params`` that the caller mapped stays. A table without such columns is left alone, and so is
    one of dense models that lists total parameters beside ``params``.

    Raises:
        InputError: for total parameters alone, a row that lacks one of them, and more active ones than total.
    """
    table.attrs.pop(SIZE, None)
    has_active, has_total = (COLUMNS[size] in table for size in (ACTIVE, TOTAL))
    if "params" in mapped or not (has_active or has_total) or (not has_active and "params" in table):
        return []
    if not has_active:
        raise InputError(
            f"{describe_column(table, 'total_params')} gives total parameters alone, and FLOPs follow from "
            "the active ones: add a column active_params, or, for dense models, say --map N="
            f"{table.attrs[HEADERS].get('total_params', 'total_params')}"
        )
    if has_total:
        _refuse_inconsistent(table)
    other = "params" in table and not np.array_equal(table["params"], table[COLUMNS[ACTIVE]], equal_nan=True)
    table["params"] = table[COLUMNS[ACTIVE]]
    notes = ["not used: column 'params', beside active_params; --map N=params uses it"] if other else []
    return [*notes, "FLOPs follow from active_params"]


def _refuse_inconsistent(table: pd.DataFrame) -> None:
    for column in COLUMNS.values():
        empty = np.flatnonzero(table[column].isna())
        if len(empty):
            raise InputError(
                f"row {empty[0] + 1}, {describe_column(table, column)}: it is empty, and every row needs "
                "active and total parameters; those of a dense model are equal"
            )
    more = np.flatnonzero(table[COLUMNS[ACTIVE]] > table[COLUMNS[TOTAL]] * (1 + 1e-9))
    if len(more):
        active, total = (table[COLUMNS[size]].iloc[more[0]] for size in (ACTIVE, TOTAL))
        raise InputError(
            f"row {more[0] + 1}: active_params ({active:.4g}) exceeds total_params ({total:.4g}); a token "
            "meets at most all parameters. Were the columns swapped?"
        )


def has_both(table: pd.DataFrame) -> bool:
    """Return True if the rows have both sizes, and ``params`` holds one of them."""
    if not all(column in table for column in COLUMNS.values()):
        return False
    return any(np.array_equal(table["params"], table[column], equal_nan=True) for column in COLUMNS.values())


def is_proportional(table: pd.DataFrame) -> bool:
    """Return True if total is one multiple of active parameters in all rows: no run tells them apart."""
    ratio = _ratio(table)
    return bool(ratio.max() / ratio.min() < SAME_RATIO)


def in_size(table: pd.DataFrame, size: str) -> pd.DataFrame:
    """Return the table with ``params`` in active or total parameters."""
    found = table.assign(params=table[COLUMNS[size]])
    found.attrs = {**table.attrs, SIZE: size}
    return found


def active_share(table: pd.DataFrame) -> float:
    """Return the share of ``params`` that is active, the median of the used rows; 1 of dense models."""
    return float(np.median(1 / _ratio(table))) if table.attrs.get(SIZE) == TOTAL else 1.0


def _ratio(table: pd.DataFrame) -> np.ndarray:
    used = table[table["excluded"] == ""] if "excluded" in table else table
    return np.asarray(used[COLUMNS[TOTAL]] / used[COLUMNS[ACTIVE]], dtype=np.float64)
