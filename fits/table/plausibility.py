"""Values that no run can have: units that were mixed up, columns that are not what they are called."""

from __future__ import annotations

import math
import shlex

import numpy as np
import pandas as pd

from fits.table.cells import HEADERS, column_called
from fits.table.column_names import map_part
from fits.table.units_in_headers import PF_DAY
from fits.table.validation import LARGEST_VOCABULARY, uniform_loss
from scaling.calibration.calibration import Calibration
from scaling.errors import InputError

BETWEEN = {"params": (1e3, 1e15), "tokens": (1e3, 1e18)}
"""Sizes outside are of another unit, or another column."""
TOKENS_PER_PARAM = (0.2, 1e4)
"""A median run outside is refused unless the units are said: one of the two columns is in another unit."""
USUAL_TOKENS_PER_PARAM = 20.0
SCALES = (1e3, 1e6, 1e9, 1e12)
COMPUTE_UNITS = {
    "GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15, "EFLOP": 1e18, "ZFLOP": 1e21, "PFLOP-days": PF_DAY,
}  # fmt: skip
REFERENCE = "besiroglu2024"
"""A law whose losses those of a table are compared with, to tell nats from perplexities."""
FAR_ABOVE = 2.0
"""No table's median loss is this many times the reference law's."""
_LEAVE_EMPTY = {
    "loss_se": "; leave it empty where it is not known",
    "teacher_loss": "; leave it empty for supervised runs",
}
SMALLEST = {"N": 1e3, "D": 1e5}
"""Columns N and D all of whose values are below are no parameters and no tokens, if others are there."""
HEADER_SCALES = "scales"
"""The attribute of a table that holds the units of its headers, by column of ours."""
STATED = "stated"
"""The attribute of a table that lists the columns whose unit was said."""


def refuse_implausible(table: pd.DataFrame) -> None:
    """Refuse what no run can have measured, and the units people most often mix up."""
    used = table[table["excluded"] == ""]
    _refuse_uniform(table)
    for column in ("params", "tokens", "loss", "teacher_loss", "loss_se"):
        bad = used[used[column] <= 0.0] if column in used else used.iloc[:0]
        if len(bad):
            row, value = bad.index[0], bad[column].iloc[0]
            called, hint = column_called(table, column), _LEAVE_EMPTY.get(column, "")
            raise InputError(f"row {row + 1}, {called}: {value:g} is not positive{hint}")
    if not len(used):
        reasons = ", ".join(f"{n} x {why}" for why, n in table["excluded"].value_counts().items())
        raise InputError(f"no row can be used: {reasons}")
    for column, unit in (("params", "parameters"), ("tokens", "tokens")):
        _refuse_size(used, column, unit)
    _refuse_ratio(used)
    _refuse_losses(used)


def _refuse_uniform(table: pd.DataFrame) -> None:
    """Refuse a table most of whose losses, or any of whose teachers', are above a uniform guess."""
    finite = table[np.isfinite(table["loss"]) & (table["tokens"] > 0)]
    above = finite[finite["excluded"].str.startswith("the loss is above")]
    if len(above) > len(finite) / 2:
        _refuse_guess(table, "loss", above, f"{len(above)} of {len(finite)} losses are")
    used = table[table["excluded"] == ""]
    above = used[used["teacher_loss"] > uniform_loss(used)]
    if len(above):
        _refuse_guess(table, "teacher_loss", above, f"{len(above)} teacher losses are")


def _refuse_guess(table: pd.DataFrame, column: str, above: pd.DataFrame, what: str) -> None:
    row, most = above.index[0], uniform_loss(above).iloc[0]
    rows = ", ".join(str(i + 1) for i in above.index[:6]) + (", ..." if len(above) > 6 else "")
    other = ""
    if most != math.log(LARGEST_VOCABULARY):
        other = f"; or {column_called(table, 'vocab')} is no vocabulary: --map vocab="
    called, value = column_called(table, column), above[column].iloc[0]
    raise InputError(
        f"row {row + 1}, {called}: {value:g} nats/token is worse than a uniform guess over "
        f"{np.exp(most):,.0f} tokens, ln = {most:.4g}; {what} (rows {rows}). Losses are in nats/token, not "
        f"sums; perplexities are converted by --loss-unit perplexity{other}"
    )


def _refuse_size(used: pd.DataFrame, column: str, unit: str) -> None:
    least, most = BETWEEN[column]
    odd = used[(used[column] < least) | (used[column] > most)]
    if odd.empty:
        return
    value, largest = odd[column].iloc[0], used[column].max()
    if value > most:
        hint = f"is it compute, in FLOPs? Then {_option(used, 'compute', column)}"
    else:
        other = used["tokens" if column == "params" else "params"]
        ratio = (other / used[column]) if column == "params" else (used[column] / other)
        scale = _likely_scale(ratio, inverse=column == "params")
        hint = f"is it in millions or billions? Say {_option(used, column, column, scale)}"
    raise InputError(
        f"row {odd.index[0] + 1}, {column_called(used, column)}: no run has {value:.6g} {unit} "
        f"(the largest value is {largest:.6g}); {hint}, or write {unit} in full, or as '143M'"
    )


def _likely_scale(ratio: pd.Series[float], *, inverse: bool) -> float:
    """The unit that brings tokens per parameter nearest to the usual ones."""
    middle = float(np.log(ratio.median()))
    sign = -1.0 if inverse else 1.0
    apart = {s: abs(middle + sign * math.log(s) - math.log(USUAL_TOKENS_PER_PARAM)) for s in SCALES}
    return min(apart, key=lambda scale: apart[scale])


def _option(table: pd.DataFrame, ours: str, column: str, scale: float | None = None) -> str:
    """The ``--map`` that reads a column of the table as ours, in a unit times that of its header."""
    return f"--map {shlex.quote(_part(table, ours, column, scale))}"


def _part(table: pd.DataFrame, ours: str, column: str, scale: float | None) -> str:
    header = table.attrs.get(HEADERS, {}).get(column, column)
    own = table.attrs.get(HEADER_SCALES, {}).get(column, 1.0)
    return map_part(ours, header, None if scale is None else scale * own)


def means_other(symbol: str, values: pd.Series) -> bool:
    """Whether a column of one letter cannot be what the letter stands for: L of layers, D of width."""
    numbers = pd.to_numeric(values, errors="coerce").dropna()
    if symbol == "L":
        return bool((numbers == numbers.round()).all())
    return bool(symbol in SMALLEST and (numbers < SMALLEST[symbol]).all())


def _refuse_ratio(used: pd.DataFrame) -> None:
    stated = used.attrs.get(STATED, ())
    if "params" in stated and ("tokens" in stated or "compute" in stated):
        return
    middle = float((used["tokens"] / used["params"]).median())
    least, most = TOKENS_PER_PARAM
    if least <= middle <= most:
        return
    few = middle < least
    scaled = "tokens" if few else "params"
    scale = _likely_scale(used["tokens"] / used["params"], inverse=not few)
    right = ",".join(_part(used, column, column, 1.0) for column in ("params", "tokens"))
    raise InputError(
        f"half of the runs have {'less' if few else 'more'} than {middle:.2g} tokens per parameter "
        f"({column_called(used, 'tokens')} to {used['tokens'].max():.4g}, {column_called(used, 'params')} to "
        f"{used['params'].max():.4g}), which is rare training. If {scaled} are in another unit, say "
        f"{_option(used, scaled, scaled, scale)}; if the two are exchanged, map them; if all is right, say "
        f"--map {shlex.quote(right)}"
    )


def _refuse_losses(used: pd.DataFrame) -> None:
    loss, called = used["loss"], column_called(used, "loss")
    if loss.nunique() == 1 and len(used) > 2:
        raise InputError(f"{called}: every run has {loss.iloc[0]:g}")
    if "loss" in used.attrs.get(STATED, ()):
        return
    if len(used) > 2 and (loss == loss.round()).all():
        raise InputError(
            f"{called}: every value is a whole number ({loss.iloc[0]:g}, {loss.iloc[1]:g}, ...), which no "
            "measured loss is; say which column is the loss with --map L=..."
        )
    law = Calibration.load(REFERENCE).supervised
    usual = np.minimum(law.loss(used["params"].to_numpy(), used["tokens"].to_numpy()), uniform_loss(used))
    times = float((loss / usual).median())
    if times > FAR_ABOVE:
        row = used.index[0]
        raise InputError(
            f"{called}: the losses are {times:.2g} times those of language models of such sizes "
            f"({loss.iloc[0]:.4g} for {used['params'].iloc[0]:.3g} parameters and "
            f"{used['tokens'].iloc[0]:.3g} tokens, row {row + 1}). If they are "
            "perplexities, add --loss-unit perplexity; if they are nats/token, say --loss-unit nats/token"
        )


def check_compute(
    table: pd.DataFrame, tokens: pd.Series[float], cost: pd.Series[float], empty: pd.Series[bool]
) -> list[str]:
    """Notes on a column ``compute``; ``cost`` (rows,) is the FLOPs of a token, ``empty`` where tokens follow.

    Raises InputError where the tokens that would follow from it are no run's.
    """
    implied = table["compute"] / cost
    known = (implied / tokens)[tokens > 0].median()
    called = column_called(table, "compute")
    if np.isfinite(known) and not 0.1 < known < 10.0:
        if not empty.any():
            return [f"not used: {called} is {known:.2g} times what these runs' training takes in FLOPs"]
        raise InputError(
            f"{called} is {known:.2g} times what training takes in FLOPs where tokens are given, and cannot "
            "stand in for the missing ones" + _compute_hint(table, known, 1.0)
        )
    ratio = (implied / table["params"])[empty].median()
    if not empty.any() or not ratio > 0.0 or "compute" in table.attrs.get(STATED, ()):
        return []
    if TOKENS_PER_PARAM[0] <= ratio <= TOKENS_PER_PARAM[1]:
        return []
    row = table.index[empty][0]
    raise InputError(
        f"row {row + 1}, {called}: {table['compute'][row]:g} FLOPs would be {implied[row]:.2g} tokens for "
        f"{table['params'][row]:.3g} parameters; C is the training's compute in FLOPs"
        + _compute_hint(table, ratio, USUAL_TOKENS_PER_PARAM)
    )


def _compute_hint(table: pd.DataFrame, ratio: float, right: float) -> str:
    apart = {unit: abs(math.log(ratio * scale / right)) for unit, scale in COMPUTE_UNITS.items()}
    unit = min(apart, key=lambda name: apart[name])
    if apart[unit] > math.log(100):
        return ""
    option = _option(table, "compute", "compute", COMPUTE_UNITS[unit])
    return f". If it is in {unit}, say {option}"
