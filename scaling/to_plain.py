"""Conversion of results to plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

PLAIN = frozenset({str, float, int, bool, type(None)})
"""Types whose values are plain already."""


def as_plain(value: Any) -> Any:
    """Return a dataclass as a dictionary, and whatever it holds likewise, for JSON.

    :func:`dataclasses.asdict` copies every number by itself, and takes twice as long.
    """
    if value.__class__ in PLAIN:
        return value
    if is_dataclass(value):
        return {name: as_plain(getattr(value, name)) for name in _names(value.__class__)}
    if isinstance(value, Mapping):
        return {key: as_plain(each) for key, each in value.items()}
    return [as_plain(each) for each in value] if isinstance(value, tuple | list) else value


def nan_to_none(value: Any) -> Any:
    """Return plain values with None in place of nan and infinity, which JSON cannot hold.

    >>> nan_to_none({"loss": float("nan"), "ends": (1.0, float("inf"))})
    {'loss': None, 'ends': [1.0, None]}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: nan_to_none(each) for key, each in value.items()}
    return [nan_to_none(each) for each in value] if isinstance(value, list | tuple) else value


@lru_cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))
