"""Names that our fields have in other trainers, and had in 0.1.0: accepted wherever the field is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LEARNING_RATE = dict.fromkeys(
    ("lr", "max_lr", "peak_lr", "peak_learning_rate", "peak_rate"), "learning_rate"
)
SYNONYMS: dict[str, dict[str, str]] = {
    "": {"share_trunks": "share_prefixes"},
    "training": {
        **_LEARNING_RATE,
        **dict.fromkeys(("final_rate", "min_lr_ratio", "final_lr_ratio"), "final_lr_fraction"),
        **dict.fromkeys(("decay", "decay_ratio"), "decay_fraction"),
        **dict.fromkeys(("clip", "clip_grad_norm", "grad_clip", "gradient_clipping"), "max_grad_norm"),
    },
    "tuning": _LEARNING_RATE,
}
"""For each part of a spec, by the name of its field ("" is the spec itself): other names to ours."""


def our_name(part: str, name: str) -> str:
    """Return our name of the field ``name`` of ``part``."""
    return SYNONYMS.get(part, {}).get(name, name)


def with_our_names(part: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``given``, the fields of ``part``, under our names.

    Raises:
        ValueError: if a field is given twice, under two of its names.
    """
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in given.items():
        ours = our_name(part, name) if isinstance(name, str) else name
        if ours in found:
            raise ValueError(f"{names[ours]} and {name} are the same field; give only {ours}")
        found[ours], names[ours] = value, name
    return found
