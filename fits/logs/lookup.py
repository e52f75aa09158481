"""Look-up of quantities and settings in the log of a run, by the name that a person or a tool gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fits.logs.formats.json_files import is_step
from fits.logs.metric_names import held_out_losses, is_training_loss
from fits.logs.run_log import RunLog, as_number
from fits.table.columns.column_names import map_option, match_header
from fits.table.columns.units_in_headers import loss_unit_of
from scaling.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quantity:
    """Metric of a run by step, or a constant at step 0."""

    name: str
    series: tuple[Array, Array]
    """Steps (n,), ascending, and values (n,)."""
    guessed: bool = False
    """True if it was recognized by its name, not named by the caller."""

    def at(self, step: float) -> float:
        """Return the last value up to a step, or the first one."""
        steps, values = self.series
        place = int(np.searchsorted(steps, step, side="right")) - 1
        return float(values[max(place, 0)])


def split_scale(mapped: str) -> tuple[str, float]:
    """Split a mapped name from its factor: ``("tokens", 1e9)`` for ``tokens*1e9``.

    Raises:
        InputError: for a factor that is not a positive number.
    """
    name, star, factor = mapped.rpartition("*")
    if not star:
        return mapped.strip(), 1.0
    try:
        scale = float(factor)
    except ValueError:
        return mapped.strip(), 1.0
    if not 0.0 < scale < float("inf"):
        raise InputError(f"--map: a unit must be a positive number, as in {name}*1e9, not {mapped!r}")
    return name.strip(), scale


def find_key(names: Mapping[str, Any], wanted: str) -> str | None:
    """Return a name, or the only one that ends with it after a dot or slash: ``config.n`` for ``n``."""
    if wanted in names:
        return wanted
    dotted = wanted.replace("/", ".")
    ends = [name for name in names if f".{name.replace('/', '.')}".endswith(f".{dotted}")]
    return ends[0] if len(ends) == 1 else None


def find_quantity(log: RunLog, wanted: str, *, mapped: bool = True, column: str = "") -> Quantity | None:
    """Return a metric or a numeric setting by its name; None if there is none.

    Args:
        log: The run.
        wanted: Name, with a factor if it was mapped; ``step`` is the step itself.
        mapped: True if the caller named it, so that the last part of a dotted name is enough.
        column: Our column; a unit in the name counts for it, unless a factor is given: ``tokens (B)``.
    """
    name, scale = split_scale(wanted)
    matched = match_header(name) if column and name == wanted.strip() else None
    if matched is not None and matched[0] == column:
        scale = matched[1].scale
    key = find_key(log.series, name) if mapped else (name if name in log.series else None)
    if key is not None:
        steps, values = log.series[key].sorted()
        return Quantity(key, (steps, values * scale))
    key = find_key(log.settings, name) if mapped else (name if name in log.settings else None)
    number = None if key is None else _number(log.settings[key])
    if number is not None:
        return Quantity(str(key), (np.zeros(1), np.array([number * scale])))
    if mapped and is_step(name) and log.series:
        steps = np.unique(np.concatenate([each.sorted()[0] for each in log.series.values()]))
        return Quantity(name, (steps, steps * scale))
    return None


def _number(value: object) -> float | None:
    if isinstance(value, str):
        try:
            return float(value.replace(",", ""))
        except ValueError:
            return None
    return as_number(value)


def find_setting(log: RunLog, wanted: str, *, exact: bool = False) -> Any:
    """Return a setting that is one text, number or truth value; None if there is none."""
    key = (wanted if wanted in log.settings else None) if exact else find_key(log.settings, wanted)
    value = None if key is None else log.settings[key]
    return value if isinstance(value, str | int | float | bool) and value != "" else None


def find_loss(log: RunLog, mapping: Mapping[str, str]) -> Quantity | str:
    """Return the held-out loss of a run, or a sentence on why there is none."""
    wanted = mapping.get("loss")
    if wanted:
        found = find_quantity(log, wanted)
        return found if found is not None else f"loss: no {wanted!r}{_similar(log, wanted)}"
    names = held_out_losses(log.series)
    if len(names) == 1 or (len(names) > 1 and _first_alone(names)):
        return Quantity(names[0], log.series[names[0]].sorted(), guessed=True)
    if names:
        choice = map_option("loss", names[0])
        return f"loss: several held-out losses, {', '.join(names[:6])}; choose one: {choice}"
    others = [name for name in log.series if is_training_loss(name)]
    if others:
        return (
            f"loss: no held-out loss; {', '.join(others[:4])} may be a training loss, which "
            f"{map_option('loss', others[0])} takes all the same"
        )
    if not log.series:
        return "loss: the log has no metrics yet"
    return f"loss: none among {', '.join(list(log.series)[:8])}; name it: --map L=..."


def _first_alone(names: list[str]) -> bool:
    """Return True if the first loss is the only one in its unit."""
    units = [loss_unit_of(name) for name in names]
    return units.count(units[0]) == 1


def _similar(log: RunLog, wanted: str) -> str:
    known = [*log.series, *log.settings]
    close = get_close_matches(split_scale(wanted)[0], known, n=3)
    there = close or list(log.series)[:8]
    return f"; it has {', '.join(there)}" if there else "; the log has no metrics"
