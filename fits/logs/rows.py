"""Rows of the table of runs from the log of one run, with sentences on what was not found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fits.logs.lookup import Quantity, find_loss, find_quantity, find_setting
from fits.logs.metric_names import SIZES, learning_rates
from fits.logs.run_log import RunLog
from fits.logs.sizes import non_embedding
from fits.logs.token_counts import tokens_at
from fits.table.columns.column_names import SYMBOLS, map_option
from fits.table.columns.loss_units import how_to_convert, in_nats, validate_loss_unit
from fits.table.columns.units_in_headers import loss_unit_of
from scaling.errors import InputError

Array = NDArray[np.float64]

NATS = "nats/token"
POINTS = ("last", "best", "decayed", "all")
"""Evaluations of a run that become rows."""
DECAYED = 0.15
"""Share of its peak below which a learning rate counts as decayed."""
TEXT_COLUMNS = ("kind", "method", "teacher", "corpus", "tokenizer", "setting")
NUMBER_COLUMNS = (
    *("teacher_loss", "teacher_params", "teacher_tokens", "compute", "epochs", "unique_tokens", "seconds"),
    *("loss_se", "flops"),
)
"""Columns that are filled where the mapping names them, or a log has them under our name."""


@dataclass(frozen=True, slots=True)
class RowOptions:
    """Options for reducing logs to rows."""

    points: str = "last"
    """"last", "best", "decayed" or "all" evaluations."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Name in the logs of each canonical column."""
    loss_unit: str | None = None
    bytes_per_token: float | None = None
    tokens_per_step: str = ""
    """Tokens of one step: a number, or names of settings to multiply, ``global_batch_size*seq_length``."""
    keep: tuple[str, ...] = ()
    """Further settings or metrics to keep as columns."""

    def __post_init__(self) -> None:
        if self.points not in POINTS:
            raise InputError(f"the points of a run are {', '.join(POINTS)}, not {self.points!r}")
        unit = validate_loss_unit(self.loss_unit, self.bytes_per_token)
        object.__setattr__(self, "loss_unit", unit)
        object.__setattr__(self, "mapping", {SYMBOLS.get(k, k): v for k, v in self.mapping.items() if v})

    def with_mapping(self, more: Mapping[str, str]) -> RowOptions:
        """Return these options with further names; those that are there take precedence."""
        return replace(self, mapping={**more, **self.mapping})


def run_rows(log: RunLog, options: RowOptions) -> list[dict[str, Any]]:
    """Return one row for each chosen evaluation of a run, at least one.

    ``missing`` lists sentences on what was not found; a loss in a unit that was not to be converted is left
    out, with ``loss_unit`` naming it.
    """
    missing: list[str] = []
    common = _common_columns(log, options, missing)
    found = find_loss(log, options.mapping)
    if isinstance(found, str):
        missing.append(found)
        return [common | {"missing": missing} | _without_loss(log, options, missing)]
    steps, losses, unit = _losses(found, options, missing)
    chosen, complaint = _choose(log, steps, losses, options.points)
    missing += complaint
    if not len(chosen):
        return [common | {"missing": missing} | _without_loss(log, options, missing)]
    tokens, tokens_source, complaint = tokens_at(log, steps[chosen], options.mapping, options.tokens_per_step)
    missing += complaint
    own = {"loss_name": found.name, "loss_unit": unit, "tokens_source": tokens_source}
    finite = np.isfinite(losses[chosen])
    if options.points != "all" and not np.isfinite(losses[-1]):
        finite[:] = False  # whatever was its best point before
    return [
        common | own
        | {"step": step, "loss": _finite(loss), "tokens": _finite(count), "missing": missing}
        | _values_at(log, options, step)
        | ({} if whole or unit else {"status": "diverged"})
        for step, loss, count, whole in zip(steps[chosen], losses[chosen], tokens, finite, strict=True)
    ]  # fmt: skip


def _without_loss(log: RunLog, options: RowOptions, missing: list[str]) -> dict[str, Any]:
    """Return step, tokens and other values at the end of a run without a loss."""
    step = log.last_step
    row = {"step": step, **_values_at(log, options, step)}
    if not log.series:
        return row
    tokens, tokens_source, complaint = tokens_at(
        log, np.array([step]), options.mapping, options.tokens_per_step
    )
    missing[:0] = complaint
    return row | {"tokens": _finite(tokens[0]), "tokens_source": tokens_source}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _losses(found: Quantity, options: RowOptions, missing: list[str]) -> tuple[Array, Array, str]:
    """Return steps and losses in nats/token, and their unit if they were not to be converted."""
    steps, values = found.series
    told = options.loss_unit or NATS
    unit = loss_unit_of(found.name) or (NATS if found.guessed else told)
    if unit == told:
        return steps, in_nats(values, told, options.bytes_per_token), ""
    if told == NATS:
        missing.append(f"loss: {found.name} is in {unit}; to convert it, add {how_to_convert(unit)}")
    elif loss_unit_of(found.name) is None:
        missing.append(
            f"loss: {found.name} does not say that it is in {told}; if it is, add "
            f"{map_option('loss', found.name)}"
        )
    else:
        missing.append(f"loss: {found.name} is in {unit}, and losses in {told} are to be converted")
    return steps, np.full(len(values), np.nan), unit


def _choose(log: RunLog, steps: Array, losses: Array, points: str) -> tuple[NDArray[np.intp], list[str]]:
    """Return the places of the evaluations to keep, and complaints."""
    if points == "all" or not len(steps):
        return np.arange(len(steps)), []
    if points == "best":
        finite = np.flatnonzero(np.isfinite(losses))
        return (finite[[np.argmin(losses[finite])]] if len(finite) else np.array([len(steps) - 1])), []
    if points == "decayed":
        return _decayed(log, steps)
    return np.array([len(steps) - 1]), []


def _decayed(log: RunLog, steps: Array) -> tuple[NDArray[np.intp], list[str]]:
    """Return the last evaluation of every decay of the learning rate."""
    names = learning_rates(list(log.series))
    if not names:
        return np.array([], dtype=np.intp), ["loss: no learning rate is logged, so no decay can be found"]
    at, rates = log.series[names[0]].sorted()
    rate = rates[np.clip(np.searchsorted(at, steps, side="right") - 1, 0, None)]
    low = rate <= DECAYED * rates.max()
    low &= steps > at[int(np.argmax(rates))]  # not the warm-up
    last = np.flatnonzero(low & ~np.append(low[1:], False))
    if not len(last):
        return last, [f"loss: {names[0]} never decayed to {100 * DECAYED:.0f} % of its peak at an evaluation"]
    return last, []


def _common_columns(log: RunLog, options: RowOptions, missing: list[str]) -> dict[str, Any]:
    """Return the columns that all rows of a run share."""
    row: dict[str, Any] = {
        "run": log.name,
        "status": log.status,
        "format": log.format,
        "source": str(log.source),
    }
    for name in (*TEXT_COLUMNS, "run"):
        value = find_setting(log, options.mapping.get(name, name), exact=name not in options.mapping)
        if value is not None:
            row[name] = value
    for name, others in SIZES.items():
        wanted = options.mapping.get(name)
        value = next(
            (v for n in ((wanted,) if wanted else others) if (v := find_setting(log, n)) is not None), None
        )
        if value is not None:
            row[name] = value
    if "aspect_ratio" in log.settings:
        row["aspect_ratio"] = log.settings["aspect_ratio"]
    row |= non_embedding(log, options.mapping, row, missing)
    return row


def _values_at(log: RunLog, options: RowOptions, step: float) -> dict[str, Any]:
    """Return further columns at a step: numbers of the table, the training loss, and what is to be kept."""
    row: dict[str, Any] = {}
    for name in NUMBER_COLUMNS:
        wanted = options.mapping.get(name, name)
        found = find_quantity(log, wanted, mapped=name in options.mapping, column=name)
        if found is not None:
            row[name] = found.at(step)
    if "teacher_loss" in row:
        loss = np.array([row["teacher_loss"]])
        row["teacher_loss"] = float(in_nats(loss, options.loss_unit, options.bytes_per_token)[0])
    for name in options.keep:
        found = find_quantity(log, name)
        value = found.at(step) if found is not None else find_setting(log, name)
        if value is not None:
            row[name] = value
    return row
