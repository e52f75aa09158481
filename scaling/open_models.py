"""Open models that one may distill from: sizes, vocabularies and training tokens of some eighty.

Parameters are counted from configurations. All but one agree with a public copy, read in November 2026, that
``shape_source`` names; what is marked "from memory" was not found. Tokens are from memory; beside each stands
the report to check it in.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import SupportsFloat

from scaling.errors import InputError
from scaling.units import format_number, parse_quantity

TABLE = Path(__file__).with_name("open_models.csv")
UNLIMITED_CONTEXT = 2**31 - 1
"""Context of models without a limit: recurrent models, and relative positions."""
_VARIANT = re.compile(r"(?:-(?:base|pt|hf|instruct|it|chat|thinking|[0-9]{4}))+$")
"""Endings that change neither a model's size nor what it was pretrained on."""
_POST_TRAINED = re.compile(r"-(?:instruct|it|chat|thinking)\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenModel:
    """A model whose weights are public."""

    name: str
    """Id on the Hugging Face hub."""
    params: float
    """N: non-embedding parameters, those of all experts included."""
    active_params: float | None
    """Parameters that a token meets; None where a token meets all."""
    total_params: float
    """Every parameter, embeddings included."""
    vocab: int
    """Rows of its output projection."""
    context: int
    """Tokens of the longest text that it is made for."""
    shape_source: str
    """Source of the configuration that gives sizes and vocabulary."""
    tokens: float | None
    """Tokens that it was pretrained on; None where they are not published."""
    source: str
    """Source of the number of tokens."""


@cache
def open_models() -> tuple[OpenModel, ...]:
    """Return every model of the table."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(_model(record) for record in csv.DictReader(file))


def _model(record: Mapping[str, str]) -> OpenModel:
    def number(column: str) -> float | None:
        return parse_quantity(record[column], f"{record['name']}, {column}") if record[column] else None

    return OpenModel(
        name=record["name"],
        params=float(record["params"]),
        active_params=number("active_params"),
        total_params=float(record["total_params"]),
        vocab=int(record["vocab"]),
        context=int(record["context"]),
        shape_source=record["shape_source"],
        tokens=number("tokens"),
        source=record["source"],
    )


def find_open_model(name: str) -> OpenModel | None:
    """Return the model of that name, with or without its owner and endings such as ``-Instruct``.

    None if it is not in the list.

    >>> find_open_model("qwen3-8b").name
    'Qwen/Qwen3-8B-Base'
    """
    spelled = name.strip().lower()
    for key in (_spelled, _bare):
        found = [model for model in open_models() if key(model.name) == key(spelled)]
        if len(found) == 1:
            return found[0]
    return None


def parse_params(value: str | SupportsFloat, what: str) -> float:
    """Return the size of a model, given as a quantity or by the name of an open model.

    Raises:
        InputError: As :func:`scaling.units.parse_quantity`, and for a mixture of experts.

    >>> parse_params("300M", "student"), parse_params("Qwen/Qwen3-0.6B", "student")
    (300000000.0, 440467456.0)
    """
    try:
        return parse_quantity(value, what, "params")
    except InputError:
        model = find_open_model(value) if isinstance(value, str) else None
        if model is None:
            raise
    if model.active_params:
        raise InputError(
            f"{what}: {model.name} is a mixture of experts ({format_number(model.params)} parameters, of "
            f"which a token meets {format_number(model.active_params)}); no law here is of such students, so "
            "plan for dense ones of either size, between which it lies"
        )
    return model.params


def is_post_trained(name: str, model: OpenModel) -> bool:
    """Return True if ``name`` means a tuned variant of ``model``: ``-Instruct``, ``-it``, or no ``-Base``.

    Its loss on plain text is then higher than that of the base model.
    """
    tuned = _POST_TRAINED.search(name.lower()) is not None
    return tuned or (_spelled(model.name).endswith("-base") and not _spelled(name).endswith("-base"))


def near_models(name: str) -> list[str]:
    """Return the models of the list whose names are nearest to ``name``, at most three.

    >>> near_models("meta-llama/Llama-3.1-9B")[0]
    'meta-llama/Llama-3.1-8B'
    """
    known = {_bare(model.name): model.name for model in open_models()}
    return [known[each] for each in difflib.get_close_matches(_bare(name), known, n=3, cutoff=0.6)]


def unknown_model(name: str) -> InputError:
    """Return the error that says which models have names near ``name``."""
    near = near_models(name)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return InputError(
        f"{name!r} is no size and none of the {len(open_models())} open models in the list; {hint}"
        "`distlaw teachers` lists them. Another model is given by its size (8B), its directory or its hub "
        "id, with the tokens it was trained on or its loss"
    )


def _spelled(name: str) -> str:
    return name.strip().lower()


def _bare(name: str) -> str:
    """Return a name without its owner and its variant."""
    return _VARIANT.sub("", _spelled(name).rpartition("/")[2])
