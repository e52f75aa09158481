"""Losses in units other than nats/token: detection and conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.table.columns.cells import HEADERS, describe_column
from fits.table.columns.column_names import HeaderMatch, map_option, match_header
from fits.table.columns.units_in_headers import LOSS_UNITS, loss_unit_of, split_loss
from scaling.errors import InputError

Array = NDArray[np.float64]

LOSS_COLUMNS = ("loss", "teacher_loss")
MAPPED = "mapped"
"""Attribute of a table with the canonical columns that ``--map`` named."""
MIN_ROWS, AGREEMENT_TOLERANCE, AGREEING_SHARE = 3, 0.005, 0.9
"""Two measures of one loss agree if, of at least ``MIN_ROWS`` rows, this share agrees to this tolerance."""
COLUMNS_IN_BITS = {"loss_bits": "loss", "teacher_loss_bits": "teacher_loss"}
"""Columns in bits/token, with the column in nats/token that each converts to."""


def validate_loss_unit(loss_unit: str | None, bytes_per_token: float | None) -> str | None:
    """Return the unit of a table's losses, None if it is not given.

    Raises:
        InputError: for an unknown unit, and for bits/byte without the text's bytes per token.
    """
    if loss_unit is not None and loss_unit not in LOSS_UNITS:
        raise InputError(f"the unit of a loss must be one of {', '.join(LOSS_UNITS)}, not {loss_unit!r}")
    if bytes_per_token is not None:
        if not (np.isfinite(bytes_per_token) and bytes_per_token > 0):
            raise InputError(
                f"--bytes-per-token must be a positive number, such as 4.2, not {bytes_per_token:g}"
            )
        if loss_unit not in (None, "bits/byte"):
            raise InputError(f"--bytes-per-token converts losses in bits/byte, not in {loss_unit}")
        return "bits/byte"
    if loss_unit == "bits/byte":
        raise InputError(f"losses in bits/byte {_BYTES}")
    return loss_unit


_BYTES = (
    "need --bytes-per-token, the mean bytes of a token in the held-out text (4.2, for example; 1 gives a law "
    "in nats/byte)"
)


def how_to_convert(unit: str) -> str:
    """Return the option that converts losses in a unit."""
    if unit == "bits/byte":
        return "--bytes-per-token 4.2, the mean bytes of a token in that text (1 for a law in nats/byte)"
    return f"--loss-unit {unit}"


def refuse_other_unit_in_header(sources: Mapping[str, HeaderMatch], loss_unit: str | None) -> None:
    """Reject a loss whose header names a unit other than ``loss_unit``."""
    for canonical in LOSS_COLUMNS:
        named = loss_unit_of(sources[canonical].header) if canonical in sources else None
        if named is None or named == loss_unit:
            continue
        header = sources[canonical].header
        if loss_unit is None:
            raise InputError(
                f"column {header!r} names the unit {named}, but losses must be in nats/token; "
                f"to convert it, add {how_to_convert(named)}"
            )
        raise InputError(
            f"column {header!r} names the unit {named}, but --loss-unit is {loss_unit}; rename it or change "
            "the unit"
        )


def remove_units(table: pd.DataFrame, loss_unit: str | None) -> None:
    """Remove from cells of losses, such as ``5.24 nats``, the unit that the table is read in.

    Raises:
        InputError: with its row, for a cell in another unit.
    """
    expected = loss_unit or "nats/token"
    for column in (*LOSS_COLUMNS, "loss_se"):
        if column not in table or pd.api.types.is_numeric_dtype(table[column]):
            continue
        values = table[column].astype(object)
        for row, value in enumerate(values):
            number, unit = split_loss(value) if isinstance(value, str) else (value, None)
            if unit not in (None, expected):
                instead = f"--loss-unit is {loss_unit}" if loss_unit else "losses must be in nats/token"
                where = f"row {row + 1}, {describe_column(table, column)}"
                raise InputError(
                    f"{where}: {value!r} is in {unit}, but {instead}; if all losses are in {unit}, add "
                    f"{how_to_convert(unit)}"
                )
            if unit:
                values.iloc[row] = number
        table[column] = values


def convert_to_nats(table: pd.DataFrame, loss_unit: str | None, bytes_per_token: float | None) -> list[str]:
    """Convert the losses of a table to nats/token in place, and return notes on it."""
    for bits, nats in COLUMNS_IN_BITS.items():
        if bits in table and nats not in table:
            table[nats] = table[bits] * np.log(2.0)
    if loss_unit in (None, "nats/token"):
        return []
    there = [column for column in LOSS_COLUMNS if column in table]
    if loss_unit == "perplexity":
        for column in there:
            _refuse_perplexity_below_one(table, column)
        if "loss_se" in table and "loss" in table:
            table["loss_se"] = table["loss_se"] / table["loss"]
        for column in there:
            table[column] = in_nats(table[column].to_numpy(), loss_unit, None)
        return ["losses are the logarithms of perplexities"]
    for column in [*there, *(["loss_se"] if "loss_se" in table else [])]:
        table[column] = in_nats(table[column].to_numpy(), loss_unit, bytes_per_token)
    per = f" and {bytes_per_token:g} bytes a token" if bytes_per_token else ""
    return [f"losses are converted from {loss_unit} with ln 2{per}"]


def in_nats(values: Array, unit: str | None, bytes_per_token: float | None) -> Array:
    """Convert losses from a unit of :data:`~fits.table.columns.units_in_headers.LOSS_UNITS` to nats/token.

    Perplexities that are not positive become NaN.
    """
    if unit in (None, "nats/token"):
        return values
    if unit == "perplexity":
        return np.asarray(np.log(np.where(values > 0, values, np.nan)), dtype=np.float64)
    factor: float = np.log(2.0) * (bytes_per_token or 1.0)
    return values * factor


def _refuse_perplexity_below_one(table: pd.DataFrame, column: str) -> None:
    low = table[column] < 1.0
    if low.any():
        row = int(np.flatnonzero(low)[0])
        raise InputError(
            f"row {row + 1}, {describe_column(table, column)}: a perplexity is at least 1, not "
            f"{table[column].iloc[row]:g}"
        )


def refuse_contradictory_losses(table: pd.DataFrame) -> None:
    """Reject a loss beside a perplexity, or bits, of a different loss.

    Perplexities are exponentials of losses, bits/token are 1/ln 2 times them, bits/byte proportional.
    """
    for column in table.columns:
        header = str(column)
        unit = loss_unit_of(header)
        found = match_header(header, unit) if unit else None
        if unit is None or found is None or found[0] != "loss":
            continue
        other = pd.to_numeric(table[column], errors="coerce")
        nats = np.log(other.where(other > 0)) if unit == "perplexity" else other * np.log(2.0)
        ratio = (nats / table["loss"]).replace([np.inf, -np.inf], np.nan).dropna()
        right = float(ratio.median()) if unit == "bits/byte" else 1.0
        if (
            len(ratio) < MIN_ROWS
            or (np.abs(ratio / right - 1.0) < AGREEMENT_TOLERANCE).mean() > AGREEING_SHARE
        ):
            continue
        loss_header = table.attrs.get(HEADERS, {}).get("loss", "loss")
        raise InputError(
            f"columns {loss_header!r} and {header!r} measure different losses (by their values, not their "
            f"units); choose the held-out one, {map_option('loss', loss_header)} or "
            f"{map_option('loss', header)} {how_to_convert(unit)}"
        )


def missing_loss(headers: Sequence[str]) -> tuple[str, str]:
    """Return the header of a loss in another unit, and the option that converts it; empty if none."""
    for header in headers:
        unit = loss_unit_of(header)
        if unit is not None and "teacher" not in header.lower():
            return header, f" {how_to_convert(unit)}"
    return "", ""
