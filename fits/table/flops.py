"""What training costs, as far as a table of runs says it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.table.column_names import SYNONYMS
from scaling.costs.accounting import ASSUMED, COUNTED, GIVEN, TABLE, Accounting, accounting, with_numbers
from scaling.costs.accounting import training_effect as effect_on_training
from scaling.costs.flops import FORWARDS_PER_STEP, Architecture
from scaling.errors import InputError

NAMES = {
    **{name: (name, *SYNONYMS[name]) for name in ("context", "vocab", "aspect_ratio")},
    "width": ("d_model", "hidden_size", "n_embd", "width", "model_dim", "embed_dim", "hidden_dim"),
    "layers": ("n_layers", "n_layer", "num_layers", "num_hidden_layers", "layers", "depth"),
}
"""What columns call the numbers that FLOPs are counted with, the first one found being taken."""
SMALLEST = {"context": 1.0, "vocab": 2.0}


def architecture(table: pd.DataFrame, given: Mapping[str, float] | None = None) -> Architecture:
    """The FLOP accounting of these models: what is ``given``, else what the table says, else assumed.

    Where a column holds several values, the median row's counts.

    Raises InputError for a given name that is not ``context``, ``vocab`` or ``aspect_ratio``.
    """
    found = Architecture(origins=dict.fromkeys(COUNTED, ASSUMED))
    for name in COUNTED:
        value, origin = _of_table(table, name)
        found = with_numbers(found, origin, **{name: value or getattr(found, name)})
    unknown = sorted({*(given or {})} - {*COUNTED})
    if unknown:
        raise InputError(f"architecture: {unknown[0]!r} is not one of {', '.join(COUNTED)}")
    return with_numbers(found, GIVEN, **(given or {}))


def counted(table: pd.DataFrame, given: Mapping[str, float] | None = None) -> Accounting:
    """The accounting in words, and what its assumed numbers change for the table's median model."""
    models = architecture(table, given)
    used = table[table["excluded"] == ""] if "excluded" in table else table
    size = float(np.exp(np.median(np.log(used["params"])))) if len(used) else 1e6
    found = accounting(models, models)
    return accounting(models, models, effect_on_training(found, models, size))


def basis(found: Accounting) -> list[str]:
    """What plans will count FLOPs with, and what the assumed numbers of it change; a sentence each."""
    how = "" if not found.effect else " Say --context, --vocab and --aspect-ratio, or add such columns."
    return [f"{found}.", *([found.effect + how] if found.effect else [])]


def training_flops(table: pd.DataFrame) -> tuple[pd.Series[float], str]:
    """FLOPs a token of training each row's model, and the rule in words.

    3 F(N) of the table's architecture where it gives one vocabulary and context, 6 N elsewhere.
    """
    if not all(len(np.unique(_values(table, name))) == 1 for name in ("vocab", "context")):
        return 6.0 * table["params"], "compute / (6 params), attention and vocabulary not counted"
    models = architecture(table)
    forward = models.forward_flops(table["params"].to_numpy(np.float64))
    cost = pd.Series(FORWARDS_PER_STEP * forward, index=table.index)
    rule = "compute / (3 F), attention and vocabulary counted"
    origin = models.origins["aspect_ratio"]
    assumed = origin.startswith(ASSUMED)
    return cost, f"{rule}, aspect ratio {models.aspect_ratio:g} ({origin})" if assumed else rule


def _of_table(table: pd.DataFrame, name: str) -> tuple[float | None, str]:
    """The value that a table gives, if any, and where it comes from."""
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
    """d_model / n_layers of every row that has both."""
    width, layers = (_column(table, name) for name in ("width", "layers"))
    if width is None or layers is None:
        return np.empty(0)
    ratio = pd.to_numeric(table[width], errors="coerce") / pd.to_numeric(table[layers], errors="coerce")
    return _positive(ratio)


def _values(table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """The plausible numbers of a column, a row each; empty where there is none."""
    column = _column(table, name)
    if column is None:
        return np.empty(0)
    return _positive(pd.to_numeric(table[column], errors="coerce"), SMALLEST.get(name, 0.0))


def _positive(values: pd.Series[float], least: float = 0.0) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[np.isfinite(numbers) & (numbers > 0) & (numbers >= least)]


def _column(table: pd.DataFrame, name: str) -> str | None:
    """The column of this name or of another name for it; a prefix such as ``model.`` does not count."""
    own = [header for header in table.columns if not str(header).lower().startswith("teacher")]
    bare = {_bare(header): header for header in reversed(own)}
    keys = (alias.replace("_", "") for alias in NAMES[name])
    return next((str(bare[key]) for key in keys if key in bare), None)


def _bare(header: object) -> str:
    """A column's name without prefix, case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", re.split(r"[./]", str(header))[-1].lower())
