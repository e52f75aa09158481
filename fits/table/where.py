"""Selection of rows by conditions such as ``state==finished`` or ``tokens>=1B``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fits.table.columns.cells import is_empty
from fits.table.columns.column_names import list_columns
from scaling.errors import InputError
from scaling.units import parse_quantity

_CONDITION = re.compile(r'^\s*(?P<name>"[^"]*"|.+?)\s*(?P<sign>==|!=|<=|>=|<|>)\s*(?P<value>.*?)\s*$')


@dataclass(frozen=True, slots=True)
class Condition:
    """Comparison of a column with a value."""

    name: str
    sign: str
    value: str
    text: str
    """Condition as it was written."""

    def mask(self, values: pd.Series) -> pd.Series[bool]:
        """Return a mask (rows,) of the cells that fulfil the condition; empty ones fulfil only ``!=``.

        Numbers are compared as numbers, texts as texts, whatever their case.

        Raises:
            InputError: for an order of texts.
        """
        number = _number(self.value)
        if number is not None:
            numbers = values.map(lambda cell: _number(cell)).astype(np.float64)
            return _compared(numbers, self.sign, number)
        if self.sign not in ("==", "!="):
            raise InputError(
                f"--where {self.text!r}: {self.value!r} is not a number, and {self.sign} compares numbers"
            )
        wanted = self.value.casefold()
        equal = values.astype(str).str.strip().str.casefold() == wanted
        equal = equal | is_empty(values) if wanted == "" else equal & ~is_empty(values)
        return equal if self.sign == "==" else ~equal


def parse_condition(text: str) -> Condition:
    """Parse a condition ``NAME==VALUE``, with ``!=``, ``<``, ``<=``, ``>`` or ``>=``.

    Raises:
        InputError: for any other text.

    >>> parse_condition("state == finished").value
    'finished'
    """
    found = _CONDITION.match(text)
    if found is None:
        raise InputError(
            f"--where: write NAME==VALUE, or with !=, <, <=, > or >=, such as 'state==finished', not {text!r}"
        )
    unquoted = [
        part[1:-1] if len(part) > 1 and part[0] == part[-1] and part[0] in "\"'" else part
        for part in found.group("name", "value")
    ]
    return Condition(unquoted[0], found["sign"], unquoted[1], text)


def matching_rows(
    table: pd.DataFrame,
    conditions: Sequence[str],
    rename: Callable[[str], str] = lambda name: name,
    known: Collection[str] = (),
) -> pd.DataFrame:
    """Return the rows of a table that fulfil all conditions.

    Args:
        table: The table.
        conditions: Conditions as :func:`parse_condition` reads them.
        rename: Function from the name in a condition to that of a column, tried if no column has the name.
        known: Columns that other parts of the table have, which count as empty here.

    Raises:
        InputError: for a condition that cannot be read, names no column, or leaves no rows.
    """
    kept = pd.Series(True, index=table.index)
    for text in conditions:
        condition = parse_condition(text)
        column = condition.name if condition.name in table else rename(condition.name)
        if column not in table and column not in known:
            columns = [str(header) for header in table.columns]
            raise InputError(
                f"--where {text!r}: no column {condition.name!r}; {list_columns(columns, condition.name)}"
            )
        values = table[column] if column in table else pd.Series(None, index=table.index, dtype=object)
        kept &= condition.mask(values)
    return table[kept]


def _compared(numbers: pd.Series[float], sign: str, number: float) -> pd.Series[bool]:
    comparisons = {
        "==": numbers == number, "!=": numbers != number, "<": numbers < number, "<=": numbers <= number,
        ">": numbers > number, ">=": numbers >= number,
    }  # fmt: skip
    return comparisons[sign]


def _number(value: object) -> float | None:
    """Return a cell or a value as a number: 5, "5", "143M"; None for texts and empty cells."""
    if isinstance(value, bool | np.bool_) or value is None:
        return None
    if isinstance(value, int | float | np.number):
        return float(value)
    try:
        return parse_quantity(str(value), "", zero=True)
    except InputError:
        try:
            return float(str(value))
        except ValueError:
            return None
