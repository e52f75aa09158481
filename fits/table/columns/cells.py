"""Conversion of table cells of any type to numbers and to names of runs."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np
import pandas as pd

from fits.table.columns.units_in_headers import count_scale
from scaling.errors import InputError
from scaling.units import Unit, format_number, parse_quantity, unit_of

EMPTY_TEXTS = frozenset(
    ("", "-", "--", "n/a", "na", "nan", "-nan", "null", "none", "<na>", "#n/a", "#na", "#n/a n/a")
)
"""Text, in lower case, that stands for an empty cell."""
HEADERS = "headers"
"""Attribute of a table with the headers of its file, by canonical column."""
DECIMAL_MARKS = (".", ",")
_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?\s*[a-z ]*", re.IGNORECASE)
"""Number with one comma that may be a decimal comma."""
_GROUPED = r"^\s*[+-]?\d{1,3}(?:\.\d{3})+\s*$"
"""Digits in groups of three after points: thousands if the decimal mark is a comma, else a fraction."""


def describe_column(table: pd.DataFrame, column: str) -> str:
    """Format a column by its header in the file: ``column 'val/loss' (loss)``."""
    header = table.attrs.get(HEADERS, {}).get(column, column)
    return f"column {header!r}" + (f" ({column})" if header != column else "")


def is_empty(values: pd.Series) -> pd.Series[bool]:
    """Return a mask of the cells that are empty, or hold one of ``EMPTY_TEXTS``."""
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        return values.isna()
    return values.isna() | values.astype(str).str.strip().str.lower().isin(EMPTY_TEXTS)


def to_numbers(table: pd.DataFrame, column: str, decimal: str = ".", scale: float = 1.0) -> pd.Series[float]:
    """Return a column as floats.

    Args:
        table: The table.
        column: Name of the column.
        decimal: Decimal mark, "." or ",".
        scale: Factor of cells that are plain numbers; "143M" has its own unit.

    Raises:
        InputError: with its row, for a cell that is not a number.
    """
    values = table[column]
    if pd.api.types.is_bool_dtype(values):
        raise InputError(f"{describe_column(table, column)} holds true/false, not numbers")
    if pd.api.types.is_numeric_dtype(values):
        return pd.Series(values.to_numpy(np.float64, na_value=np.nan), index=values.index) * scale
    values = values.astype(object)
    truth = values.map(lambda value: isinstance(value, bool | np.bool_))
    if decimal == ",":
        truth |= values.astype(str).str.contains(_GROUPED)  # 1.234 may be 1234: rejected below
    plain = pd.to_numeric(values.mask(truth), errors="coerce").astype(np.float64) * scale
    for row in map(int, np.flatnonzero(plain.isna() & ~is_empty(values))):
        text = str(values.iloc[row]).strip()
        where = f"row {row + 1}, {describe_column(table, column)}"
        plain.iloc[row] = _number(text, where, decimal, scale, _unit(column))
    return plain


def _unit(column: str) -> Unit:
    """Return the unit that cells of a canonical column may have."""
    return "FLOPs" if column in ("compute", "flops") else unit_of(column)


def _number(text: str, where: str, decimal: str, scale: float, unit: Unit) -> float:
    if decimal == "," and re.search(_GROUPED, text):
        other = f", or {text.replace('.', ',')}" if text.count(".") == 1 else ""
        raise InputError(
            f"{where}: {text!r} has a point where the decimal mark is a comma; write {text.replace('.', '')} "
            f"if it separates thousands{other}"
        )
    if decimal == "," and "," in text:
        if not _COMMA.fullmatch(text):
            raise InputError(f"{where}: {text!r} is not a number with a decimal comma")
        text = text.replace(",", ".")
        if re.fullmatch(r"[-+.\de]+", text.lower()):
            return float(text) * scale
    if _COMMA.fullmatch(text):
        pointed, joined = text.replace(",", "."), text.replace(",", "")
        other = f", or {joined} if it separates thousands" if re.search(r"\d,\d{3}\D*$", text) else ""
        raise InputError(
            f"{where}: {text!r} has a comma, perhaps a decimal comma; write {pointed}{other}, or add "
            "--decimal , for the whole table"
        )
    try:
        number = parse_quantity(text, where, unit)
    except InputError as error:
        raise InputError(f"{where}: {text!r} is not a number{_instead(text)}") from error
    return number if re.search(r"[a-z]\s*$", text.lower()) else number * scale


def _instead(text: str) -> str:
    """Return how to write a number with a word such as million, or with an error; empty for other text."""
    first, *words = re.sub(r"(?<=\d)(?=[a-zA-Z])", " ", text).split()
    scale = next((scale for word in words if (scale := count_scale(word))), None)
    if scale and re.fullmatch(r"[\d.]+", first):
        return f"; write {first}{format_number(scale).removeprefix('1')}"
    if found := re.fullmatch(r"([\d.]+)\s*(?:±|\+/-|\+-)\s*([\d.]+)", text):
        return f"; write {found[1]}, and {found[2]} in a column loss_se if it is the loss's standard error"
    return ""


def holds_numbers(table: pd.DataFrame, column: str) -> bool:
    """Return True if a column holds any number, a possible decimal comma, or nothing."""
    values = table[column]
    if pd.api.types.is_bool_dtype(values):
        return False
    if pd.api.types.is_numeric_dtype(values):
        return True
    filled = values[~is_empty(values)].astype(object)
    if filled.empty or pd.to_numeric(filled.astype(str), errors="coerce").notna().any():
        return True
    for text in filled.astype(str).unique()[:1000]:
        if _COMMA.fullmatch(text.strip()):
            return True
        try:
            parse_quantity(text, column, _unit(column))
        except InputError:
            continue
        return True
    return False


def run_names(values: pd.Series) -> pd.Series:
    """Return names of runs as text: 3, 3.0 and "3" are one name; empty cells stay empty."""
    named = values.astype(object).mask(is_empty(values))
    text = named.map(_run_name, na_action="ignore")
    return text.astype(object).where(text.notna(), None)


def _run_name(value: object) -> str:
    return re.sub(r"^(\d+)\.0+$", r"\1", str(value).strip())


def infer_types(table: pd.DataFrame, but: Collection[str]) -> pd.DataFrame:
    """Convert columns of numbers or booleans from text, except those in ``but``."""
    for column in table.columns.difference(list(but)):
        values = table[column].astype(object).infer_objects()
        if pd.api.types.is_object_dtype(values) or pd.api.types.is_string_dtype(values):
            booleans = {"true": True, "false": False}
            lower = values.astype(str).str.lower()
            if values.notna().all() and lower.isin(list(booleans)).all():
                values = lower.map(booleans)
            else:
                numeric = pd.to_numeric(values, errors="coerce")
                values = numeric if (numeric.notna() | values.isna()).all() else values
        table[column] = values
    return table
