"""Synonyms of fields, from other trainers and from 0.1.0, accepted instead of the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LEARNING_RATE = dict.fromkeys(
    ("lr", "max_lr", "peak_lr", "peak_learning_rate", "peak_rate"), "learning_rate"
)
SYNONYMS: dict[str, dict[str, str]] = {
    "": {"share_trunks": "share_prefixes", "max_flops": "caps.flops"},
    "training": {
        **_LEARNING_RATE,
        **dict.fromkeys(("final_rate", "min_lr_ratio", "final_lr_ratio"), "final_lr_fraction"),
        **dict.fromkeys(("decay", "decay_ratio"), "decay_fraction"),
        **dict.fromkeys(("clip", "clip_grad_norm", "grad_clip", "gradient_clipping"), "max_grad_norm"),
    },
    "tuning": _LEARNING_RATE,
    "hardware": dict.fromkeys(("utilization", "mfu"), "utilisation"),
}
"""Synonyms and their fields, by part of a spec ("" is the spec itself); PART.FIELD lies in another."""


def canonical_name(part: str, name: str) -> str:
    """Return the canonical name of the field ``name`` of ``part``."""
    return SYNONYMS.get(part, {}).get(name, name)


def with_canonical_names(part: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``given``, the fields of ``part``, under canonical names.

    Raises:
        ValueError: if a field is given under two names.
    """
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    inner: dict[str, str] = {}
    for name, value in given.items():
        field = canonical_name(part, name) if isinstance(name, str) else name
        if "." in str(field):
            inner[name] = field
            continue
        if field in found:
            raise _given_twice(field, names[field], name)
        found[field], names[field] = value, name
    for name, path in inner.items():
        _move_inside(found, path, given[name], name)
    return found


def _move_inside(fields: dict[str, Any], path: str, value: Any, name: str) -> None:
    """Put ``value`` where ``path`` (PART.FIELD) says, unless it is null, as stores of 0.1.0 write it."""
    part, _, field = path.partition(".")
    inside = fields.get(part) or {}
    if value is None:
        return
    if not isinstance(inside, dict) or inside.get(field) is not None:
        raise _given_twice(path, path, name)
    fields[part] = {**inside, field: value}


def _given_twice(field: str, first: str, second: str) -> ValueError:
    return ValueError(f"{first} and {second} are the same field; give only {field}")
