"""Check of the records of steps in a store, field by field, when they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

from scaling.costs.flops import ModelShape
from sweeps.dag.external_shape import CountedShape
from sweeps.data.tokens import Half
from sweeps.spec.corpus import Corpus
from sweeps.spec.spec import Training

Part = TypeVar("Part")


class KnownParts:
    """Parts of records that were read before: of many steps' equal parts, one is validated and kept."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Any] = {}

    def read(self, read: Callable[[Any], Part], data: Any) -> Part:
        """Return ``read(data)``; that of equal data is the same object, if ``read`` has the same name."""
        key = read.__qualname__, repr(data)  # 1, 1.0 and True are equal, but not for the checks
        if key not in self._known:
            self._known[key] = read(data)
        found: Part = self._known[key]
        return found


def check_record(data: dict[str, Any]) -> None:
    """Raise ValueError if a field that no class of its own validates is mistyped."""
    counted = ["text_tokens"] if "text_tokens" in data else []
    for name in ("steps", "seed", "data_seed", *counted):
        value = data[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} is {value!r:.60}, expected a whole number")
    if data["half"] not in (halves := (*get_args(get_args(Half)[0]), None)):
        raise ValueError(f"half is {data['half']!r:.60}, expected one of {halves}")
    if not isinstance(data["aspect_ratio"], int | float):
        raise ValueError(f"aspect_ratio is {data['aspect_ratio']!r:.60}, expected a number")


def read_shape(data: dict[str, Any]) -> ModelShape:
    """Return the shape that a record of a step describes."""
    return CountedShape.read(data) if "counted" in data else ModelShape(**data)


def read_corpus(data: dict[str, Any]) -> Corpus:
    """Return the corpus that a record of a step describes."""
    return Corpus(**{name: value for name, value in data.items() if name != "fingerprint"})


def read_training(data: dict[str, Any]) -> Training:
    """Return the training rules that a record of a step describes."""
    return Training(**data)
