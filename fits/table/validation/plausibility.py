"""Rejection of values that no run can have: confused units, misnamed columns."""

from __future__ import annotations

import math
import shlex

import numpy as np
import pandas as pd

from fits.table.columns.cells import HEADERS, describe_column
from fits.table.columns.column_names import map_part
from fits.table.columns.units_in_headers import PF_DAY
from fits.table.projection import PROJECTED_SD
from fits.table.validation.validation import LARGEST_VOCABULARY, uniform_loss
from scaling.calibration.calibration import Calibration
from scaling.errors import InputError

PLAUSIBLE_RANGE = {"params": (1e3, 1e15), "tokens": (1e3, 1e18)}
"""Plausible range of parameters and tokens."""
TOKENS_PER_PARAM = (0.2, 1e4)
"""Range of the median tokens per parameter that is accepted unless ``--map`` gives the units."""
USUAL_TOKENS_PER_PARAM = 20.0
SCALES = (1e3, 1e6, 1e9, 1e12)
COMPUTE_UNITS = {
    "GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15, "EFLOP": 1e18, "ZFLOP": 1e21, "PFLOP-days": PF_DAY,
}  # fmt: skip
REFERENCE_LAW = "besiroglu2024"
"""Calibration that losses are compared with, to distinguish nats from perplexities."""
MAX_LOSS_RATIO = 2.0
"""Largest ratio of a table's median loss to that of the reference law."""
MAX_PROJECTED_SD = 0.2
"""Largest standard deviation of ln loss of a projection; distlaw's own are below 0.02."""
_EMPTY_CELL_HINT = {
    "loss_se": "; leave it empty where it is not known",
    "teacher_loss": "; leave it empty for supervised runs",
    "projected_sd": "; leave it empty for measured losses",
}
MIN_SYMBOL_VALUE = {"N": 1e3, "D": 1e5}
"""Values below which columns N and D are not parameters and tokens, if other columns match these."""
HEADER_SCALES = "scales"
"""Attribute of a table with the units of its headers, by canonical column."""
STATED = "stated"
"""Attribute of a table with the columns whose unit was given."""


def refuse_implausible(table: pd.DataFrame) -> None:
    """Reject values that no run can have measured, and units that are often confused."""
    used = table[table["excluded"] == ""]
    _refuse_above_uniform(table)
    for column in ("params", "tokens", "loss", "teacher_loss", "loss_se", "projected_sd"):
        bad = used[(used[column] <= 0.0) | np.isinf(used[column])] if column in used else used.iloc[:0]
        if len(bad):
            row, value = bad.index[0], bad[column].iloc[0]
            called, hint = describe_column(table, column), _EMPTY_CELL_HINT.get(column, "")
            wrong = "finite" if value > 0.0 else "positive"
            raise InputError(f"row {row + 1}, {called}: {value:g} is not {wrong}{hint}")
    if not len(used):
        reasons = ", ".join(f"{n} x {why}" for why, n in table["excluded"].value_counts().items())
        raise InputError(f"no row can be used: {reasons}")
    _refuse_uncertainty(used)
    for column, unit in (("params", "parameters"), ("tokens", "tokens")):
        _refuse_size(used, column, unit)
    _refuse_ratio(used)
    _refuse_losses(used)


def _refuse_uncertainty(used: pd.DataFrame) -> None:
    """Reject a projected loss of which hardly anything is known: percent, or another column."""
    bad = used[used[PROJECTED_SD] > MAX_PROJECTED_SD] if PROJECTED_SD in used else used.iloc[:0]
    if len(bad):
        called, value = describe_column(used, PROJECTED_SD), bad[PROJECTED_SD].iloc[0]
        raise InputError(
            f"row {bad.index[0] + 1}, {called}: {value:g} is too much for the standard deviation of ln loss, "
            f"at most {MAX_PROJECTED_SD:g}; 0.005 is half a percent of the loss"
        )


def _refuse_above_uniform(table: pd.DataFrame) -> None:
    """Reject a table if most losses, or any teacher's loss, are above that of a uniform guess."""
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
        other = f"; or, if {describe_column(table, 'vocab')} is not the vocabulary, --map vocab="
    called, value = describe_column(table, column), above[column].iloc[0]
    raise InputError(
        f"row {row + 1}, {called}: {value:g} nats/token is worse than a uniform guess over "
        f"{np.exp(most):,.0f} tokens, ln = {most:.4g}; {what} (rows {rows}). Losses must be in nats/token, "
        f"not sums; --loss-unit perplexity converts perplexities{other}"
    )


def _refuse_size(used: pd.DataFrame, column: str, unit: str) -> None:
    least, most = PLAUSIBLE_RANGE[column]
    odd = used[(used[column] < least) | (used[column] > most)]
    if odd.empty:
        return
    value, largest = odd[column].iloc[0], used[column].max()
    if value > most:
        hint = f"if it is compute in FLOPs, add {_map_option(used, 'compute', column)}, or "
    else:
        hint = _unit_hint(used, column)
    raise InputError(
        f"row {odd.index[0] + 1}, {describe_column(used, column)}: no run has {value:.6g} {unit} "
        f"(the largest value is {largest:.6g}); {hint}write {unit} in full, or as '143M'"
    )


def _unit_hint(used: pd.DataFrame, column: str) -> str:
    """Return what to add if ``column``, with implausibly small values, has a unit that its header lacks."""
    other = "tokens" if column == "params" else "params"
    if used[column].max() >= 1e3 * PLAUSIBLE_RANGE[column][0]:  # cells in several units
        return ""
    if used[other].min() < PLAUSIBLE_RANGE[other][0]:  # each alone would be scaled to fit the other
        parts = (_map_part(used, "params", "params", 1e6), _map_part(used, "tokens", "tokens", 1e9))
        both = shlex.quote(",".join(parts))
        return f"if both sizes lack a unit, state both, as in --map {both} for millions and billions, or "
    ratio = used["tokens"] / used["params"]
    scale = _likely_scale(ratio, inverse=column == "params")
    return f"if it is in millions or billions, add {_map_option(used, column, column, scale)}, or "


def _likely_scale(ratio: pd.Series[float], *, inverse: bool) -> float:
    """Return the unit that brings tokens per parameter closest to the usual number."""
    middle = float(np.log(ratio.median()))
    sign = -1.0 if inverse else 1.0
    apart = {s: abs(middle + sign * math.log(s) - math.log(USUAL_TOKENS_PER_PARAM)) for s in SCALES}
    return min(apart, key=lambda scale: apart[scale])


def _map_option(table: pd.DataFrame, canonical: str, column: str, scale: float | None = None) -> str:
    """Return the ``--map`` option for a column of the table, in a unit times that of its header."""
    return f"--map {shlex.quote(_map_part(table, canonical, column, scale))}"


def _map_part(table: pd.DataFrame, canonical: str, column: str, scale: float | None) -> str:
    header = table.attrs.get(HEADERS, {}).get(column, column)
    own = table.attrs.get(HEADER_SCALES, {}).get(column, 1.0)
    return map_part(canonical, header, None if scale is None else scale * own)


def is_other_quantity(symbol: str, values: pd.Series) -> bool:
    """Return True if a column of one letter is another quantity: L for layers, D for width."""
    numbers = pd.to_numeric(values, errors="coerce").dropna()
    if symbol == "L":
        return bool((numbers == numbers.round()).all())
    return bool(symbol in MIN_SYMBOL_VALUE and (numbers < MIN_SYMBOL_VALUE[symbol]).all())


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
    right = ",".join(_map_part(used, column, column, 1.0) for column in ("params", "tokens"))
    raise InputError(
        f"half of the runs have {'less' if few else 'more'} than {middle:.2g} tokens per parameter "
        f"({describe_column(used, 'tokens')} to {used['tokens'].max():.4g}, "
        f"{describe_column(used, 'params')} to {used['params'].max():.4g}), which is rare in training. If "
        f"{scaled} are in another unit, add {_map_option(used, scaled, scaled, scale)}; if the two are "
        f"exchanged, map them; if both are right, add --map {shlex.quote(right)}"
    )


def _refuse_losses(used: pd.DataFrame) -> None:
    loss, called = used["loss"], describe_column(used, "loss")
    if loss.nunique() == 1 and len(used) > 2:
        raise InputError(f"{called}: every run has {loss.iloc[0]:g}")
    if "loss" in used.attrs.get(STATED, ()):
        return
    if len(used) > 2 and (loss == loss.round()).all():
        raise InputError(
            f"{called}: every value is a whole number ({loss.iloc[0]:g}, {loss.iloc[1]:g}, ...), unlike a "
            "measured loss; map the loss with --map L=..."
        )
    law = Calibration.load(REFERENCE_LAW).supervised
    usual = np.minimum(law.loss(used["params"].to_numpy(), used["tokens"].to_numpy()), uniform_loss(used))
    times = float((loss / usual).median())
    if times > MAX_LOSS_RATIO:
        row = used.index[0]
        raise InputError(
            f"{called}: the losses are {times:.2g} times those of language models of such sizes "
            f"({loss.iloc[0]:.4g} for {used['params'].iloc[0]:.3g} parameters and "
            f"{used['tokens'].iloc[0]:.3g} tokens, row {row + 1}). If they are "
            "perplexities, add --loss-unit perplexity; if they are nats/token, add --loss-unit nats/token"
        )


def check_compute(
    table: pd.DataFrame, tokens: pd.Series[float], cost: pd.Series[float], empty: pd.Series[bool]
) -> list[str]:
    """Check a column ``compute``, and return notes on it.

    Args:
        table: The table.
        tokens: Tokens (rows,) of the table.
        cost: Training FLOPs per token (rows,).
        empty: Mask (rows,) of the rows whose tokens are derived from compute.

    Raises:
        InputError: if the tokens derived from it are implausible.
    """
    implied = table["compute"] / cost
    known = (implied / tokens)[tokens > 0].median()
    called = describe_column(table, "compute")
    if np.isfinite(known) and not 0.1 < known < 10.0:
        if not empty.any():
            return [f"not used: {called} is {known:.2g} times the training FLOPs of these runs"]
        raise InputError(
            f"{called} is {known:.2g} times the training FLOPs of the rows with tokens, and cannot replace "
            "missing tokens" + _compute_hint(table, known, 1.0)
        )
    ratio = (implied / table["params"])[empty].median()
    if not empty.any() or not ratio > 0.0 or "compute" in table.attrs.get(STATED, ()):
        return []
    if TOKENS_PER_PARAM[0] <= ratio <= TOKENS_PER_PARAM[1]:
        return []
    row = table.index[empty][0]
    raise InputError(
        f"row {row + 1}, {called}: {table['compute'][row]:g} FLOPs would be {implied[row]:.2g} tokens for "
        f"{table['params'][row]:.3g} parameters; C must be the compute of training in FLOPs"
        + _compute_hint(table, ratio, USUAL_TOKENS_PER_PARAM)
    )


def _compute_hint(table: pd.DataFrame, ratio: float, right: float) -> str:
    apart = {unit: abs(math.log(ratio * scale / right)) for unit, scale in COMPUTE_UNITS.items()}
    unit = min(apart, key=lambda name: apart[name])
    if apart[unit] > math.log(100):
        return ""
    option = _map_option(table, "compute", "compute", COMPUTE_UNITS[unit])
    return f". If it is in {unit}, add {option}"
