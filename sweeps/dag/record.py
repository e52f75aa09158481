"""Check of the records of steps in a store, field by field, when they are read."""

from __future__ import annotations

from typing import Any, get_args

from scaling.costs.flops import ModelShape
from sweeps.dag.external_shape import CountedShape
from sweeps.data.tokens import Half


def check_record(data: dict[str, Any]) -> None:
    """Raise ValueError if a field that no class of its own validates is mistyped."""
    for name in ("steps", "seed", "data_seed", "text_tokens"):
        value = data.get(name, 1) if name == "text_tokens" else data[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} is {value!r:.60}, expected a whole number")
    if data["half"] not in (halves := (*get_args(get_args(Half)[0]), None)):
        raise ValueError(f"half is {data['half']!r:.60}, expected one of {halves}")
    if not isinstance(data["aspect_ratio"], int | float):
        raise ValueError(f"aspect_ratio is {data['aspect_ratio']!r:.60}, expected a number")


def shape_of_record(data: dict[str, Any]) -> ModelShape:
    """Return the shape that a record of a step describes."""
    return CountedShape.read(data) if "counted" in data else ModelShape(**data)
