"""Architecture of the models of a table, and FLOPs of their training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.table.columns.column_names import SYNONYMS
from fits.table.experts import active_share
from scaling.costs.flops import Architecture
from scaling.costs.flops_assumptions import (
    ASSUMED,
    COUNTED,
    GIVEN,
    TABLE,
    Accounting,
    accounting,
    assumed_architecture,
    with_numbers,
)
from scaling.costs.flops_assumptions import training_effect as effect_on_training
from scaling.errors import InputError

COLUMN_ALIASES = {
    **{name: (name, *SYNONYMS[name]) for name in ("context", "vocab", "aspect_ratio")},
    "width": ("d_model", "hidden_size", "n_embd", "width", "model_dim", "embed_dim", "hidden_dim"),
    "layers": ("n_layers", "n_layer", "num_layers", "num_hidden_layers", "layers", "depth"),
}
"""Column names of the numbers that FLOPs are counted with; the first one found is used."""
MIN_VALUES = {"context": 1.0, "vocab": 2.0}


def table_architecture(table: pd.DataFrame, given: Mapping[str, float] | None = None) -> Architecture:
    """Return the architecture that FLOPs are counted with: ``given``, else from the table, else assumed.

    The median row of a column is used.

    Raises:
        InputError: for a given name other than ``context``, ``vocab`` or ``aspect_ratio``.
    """
    found = replace(assumed_architecture(), active_share=active_share(table))
    for name in COUNTED:
        value, origin = _table_value(table, name)
        found = with_numbers(found, origin, **{name: value or getattr(found, name)})
    unknown = sorted({*(given or {})} - {*COUNTED})
    if unknown:
        raise InputError(f"architecture: {unknown[0]!r} is not one of {', '.join(COUNTED)}")
    return with_numbers(found, GIVEN, **(given or {}))


def table_accounting(table: pd.DataFrame, given: Mapping[str, float] | None = None) -> Accounting:
    """Describe the architecture, and the effect of its assumed numbers on the table's median model."""
    models = table_architecture(table, given)
    used = table[table["excluded"] == ""] if "excluded" in table else table
    size = float(np.exp(np.median(np.log(used["params"])))) if len(used) else 1e6
    found = accounting(models, models)
    return accounting(models, models, effect_on_training(found, models, size))


def accounting_lines(found: Accounting) -> list[str]:
    """Describe the architecture that plans count FLOPs with, and the effect of assumed numbers."""
    return [f"{found}.", *effect_lines(found)]


def effect_lines(found: Accounting) -> list[str]:
    """Describe the effect of assumed numbers and how to give them, if any is assumed."""
    how = "Give --context, --vocab and --aspect-ratio, or add such columns."
    return [f"{found.effect} {how}"] if found.effect else []


def training_flops(table: pd.DataFrame) -> tuple[pd.Series[float], str]:
    """Return training FLOPs per token (rows,) of each row's model, and the rule in words.

    It is 3 F(N) if the table gives one vocabulary and one context, else 6 N.
    """
    if not all(len(np.unique(_values(table, name))) == 1 for name in ("vocab", "context")):
        return 6.0 * table["params"], "compute / (6 params), attention and vocabulary not counted"
    models = table_architecture(table)
    cost = pd.Series(models.training_flops(table["params"].to_numpy(np.float64)), index=table.index)
    rule = "compute / (3 F), attention and vocabulary counted"
    origin = models.origins["aspect_ratio"]
    assumed = origin.startswith(ASSUMED)
    return cost, f"{rule}, aspect ratio {models.aspect_ratio:g} ({origin})" if assumed else rule


def _table_value(table: pd.DataFrame, name: str) -> tuple[float | None, str]:
    """Return the value that a table gives, if any, and its origin."""
    values = _values(table, name)
    if name == "aspect_ratio" and not len(values):
        values = _aspect_ratios(table)
    if not len(values):
        column = _column(table, name)
        return None, ASSUMED if column is None else f"{ASSUMED}, as column {column!r} holds no number"
    middle = float(np.quantile(values, 0.5, method="nearest"))
    if values.min() == values.max():
        return middle, TABLE
    return middle, f"{TABLE}, median of {values.min():g} to {values.max():g}"


def _aspect_ratios(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return d_model / n_layers of every row that has both."""
    width, layers = (_column(table, name) for name in ("width", "layers"))
    if width is None or layers is None:
        return np.empty(0)
    ratio = pd.to_numeric(table[width], errors="coerce") / pd.to_numeric(table[layers], errors="coerce")
    return _positive(ratio)


def _values(table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Return the plausible numbers of a column; empty if there are none."""
    column = _column(table, name)
    if column is None:
        return np.empty(0)
    return _positive(pd.to_numeric(table[column], errors="coerce"), MIN_VALUES.get(name, 0.0))


def _positive(values: pd.Series[float], least: float = 0.0) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[np.isfinite(numbers) & (numbers > 0) & (numbers >= least)]


def _column(table: pd.DataFrame, name: str) -> str | None:
    """Find a column by one of its names, ignoring prefixes such as ``model.``."""
    own = [header for header in table.columns if not str(header).lower().startswith("teacher")]
    bare = {_bare(header): header for header in reversed(own)}
    keys = (alias.replace("_", "") for alias in COLUMN_ALIASES[name])
    return next((str(bare[key]) for key in keys if key in bare), None)


def _bare(header: object) -> str:
    """Return a column's name without prefix, case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", re.split(r"[./]", str(header))[-1].lower())
