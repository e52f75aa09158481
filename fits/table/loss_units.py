"""Losses in other units than nats/token: what converts them, and what gives them away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fits.table.cells import HEADERS, column_called
from fits.table.column_names import Source, map_option, match
from fits.table.units_in_headers import LOSS_UNITS, loss_unit_of
from scaling.errors import InputError

LOSSES = ("loss", "teacher_loss")
MAPPED = "mapped"
"""The attribute of a table that lists the columns of ours that ``--map`` named."""
LEAST, SAME, MOST = 3, 0.005, 0.9
"""Two measures of one loss agree, in as many rows, to within this share, in this share of the rows."""
IN_BITS = {"loss_bits": "loss", "teacher_loss_bits": "teacher_loss"}
"""Losses in bits/token, by the column in nats/token that they fill."""


def checked_unit(loss_unit: str | None, bytes_per_token: float | None) -> str | None:
    """The unit of a table's losses, None where it is not given.

    Raises InputError for a unit that is none, and for bits/byte without the text's bytes per token.
    """
    if loss_unit is not None and loss_unit not in LOSS_UNITS:
        raise InputError(f"the unit of a loss is one of {', '.join(LOSS_UNITS)}, not {loss_unit!r}")
    if bytes_per_token is not None:
        if not (np.isfinite(bytes_per_token) and bytes_per_token > 0):
            raise InputError(f"--bytes-per-token is a positive number, such as 4.2; not {bytes_per_token:g}")
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
    """The option to type for losses in a unit."""
    if unit == "bits/byte":
        return "--bytes-per-token 4.2, the mean bytes of a token in that text (1 for a law in nats/byte)"
    return f"--loss-unit {unit}"


def refuse_named_otherwise(sources: Mapping[str, Source], loss_unit: str | None) -> None:
    """Refuse a loss whose header says another unit than the one it is taken in."""
    for ours in LOSSES:
        named = loss_unit_of(sources[ours].header) if ours in sources else None
        if named is None or named == loss_unit:
            continue
        header = sources[ours].header
        if loss_unit is None:
            raise InputError(
                f"column {header!r} is called by the unit {named}, and losses are in nats/token; "
                f"to convert it, add {how_to_convert(named)}"
            )
        raise InputError(f"column {header!r} is called by the unit {named}, not {loss_unit}; which is it?")


def in_nats(table: pd.DataFrame, loss_unit: str | None, bytes_per_token: float | None) -> list[str]:
    """Convert the losses of a table in place; a note on what was done."""
    for bits, nats in IN_BITS.items():
        if bits in table and nats not in table:
            table[nats] = table[bits] * np.log(2.0)
    if loss_unit in (None, "nats/token"):
        return []
    there = [column for column in LOSSES if column in table]
    if loss_unit == "perplexity":
        for column in there:
            _refuse_no_perplexity(table, column)
        if "loss_se" in table and "loss" in table:
            table["loss_se"] = table["loss_se"] / table["loss"]
        for column in there:
            table[column] = np.log(table[column].where(table[column] > 0))
        return ["losses are the logarithms of perplexities"]
    factor = np.log(2.0) * (bytes_per_token or 1.0)
    for column in [*there, *(["loss_se"] if "loss_se" in table else [])]:
        table[column] = table[column] * factor
    per = f" and {bytes_per_token:g} bytes a token" if bytes_per_token else ""
    return [f"losses are converted from {loss_unit} with ln 2{per}"]


def _refuse_no_perplexity(table: pd.DataFrame, column: str) -> None:
    low = table[column] < 1.0
    if low.any():
        row = int(np.flatnonzero(low)[0])
        raise InputError(
            f"row {row + 1}, {column_called(table, column)}: a perplexity is at least 1, not "
            f"{table[column].iloc[row]:g}"
        )


def refuse_contradicting(table: pd.DataFrame) -> None:
    """Refuse a loss beside a perplexity, or bits, of another loss: which one is the held-out one?

    Perplexities are exponentials of losses, bits/token are 1/ln 2 times them, bits/byte proportional.
    """
    for column in table.columns:
        header = str(column)
        unit = loss_unit_of(header)
        found = match(header, unit) if unit else None
        if unit is None or found is None or found[0] != "loss":
            continue
        other = pd.to_numeric(table[column], errors="coerce")
        nats = np.log(other.where(other > 0)) if unit == "perplexity" else other * np.log(2.0)
        ratio = (nats / table["loss"]).replace([np.inf, -np.inf], np.nan).dropna()
        right = float(ratio.median()) if unit == "bits/byte" else 1.0
        if len(ratio) < LEAST or (np.abs(ratio / right - 1.0) < SAME).mean() > MOST:
            continue
        called = table.attrs.get(HEADERS, {}).get("loss", "loss")
        raise InputError(
            f"columns {called!r} and {header!r} measure different things (by their values, not by the unit); "
            f"say which is the held-out loss, {map_option('loss', called)} or "
            f"{map_option('loss', header)} {how_to_convert(unit)}"
        )


def missing_loss(headers: Sequence[str]) -> tuple[str, str]:
    """The header of a loss in another unit, and the option that converts it; empty where there is none."""
    for header in headers:
        unit = loss_unit_of(header)
        if unit is not None and "teacher" not in header.lower():
            return header, f" {how_to_convert(unit)}"
    return "", ""
