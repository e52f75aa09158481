"""Layers of a model whose hidden states are read, and the precision in which they are kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from scaling.costs.flops import ModelShape
from scaling.errors import InputError

StoredPrecision: TypeAlias = Literal["fp32", "bf16", "fp16"]
BYTES: dict[StoredPrecision, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a number on disk."""


@dataclass(frozen=True, slots=True)
class HiddenLayers:
    """Layers by their number from the embedding, 0, up; the last is what the final norm returns."""

    layers: tuple[int, ...]
    """Ascending."""
    precision: StoredPrecision

    @classmethod
    def of(cls, layers: Sequence[int], shape: ModelShape, precision: StoredPrecision) -> HiddenLayers:
        """Return ``layers`` of a model of ``shape``; negative numbers count from its last."""
        return cls(tuple(sorted(set(counted_from_embedding(layers, shape)))), precision)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> HiddenLayers:
        """Return the inverse of :meth:`as_json`.

        Raises:
            ValueError: if a field holds something else than it may.
        """
        layers, precision = data["layers"], data["precision"]
        if not layers or any(type(each) is not int or each < 0 for each in layers):
            raise ValueError(f"hidden.layers is {layers!r:.60}, expected whole numbers")
        if precision not in (known := get_args(StoredPrecision)):
            raise ValueError(f"hidden.precision is {precision!r:.60}, expected one of {known}")
        return cls(tuple(layers), precision)

    def with_layers_of(self, other: HiddenLayers) -> HiddenLayers:
        """Return the layers of both, in the precision that they share."""
        assert self.precision == other.precision
        return HiddenLayers(tuple(sorted({*self.layers, *other.layers})), self.precision)

    def bytes_per_token(self, width: int) -> float:
        """Return the bytes on disk of a token of a model of ``width``."""
        return float(BYTES[self.precision] * width * len(self.layers))

    def as_json(self) -> dict[str, Any]:
        """Return both fields as plain JSON."""
        return asdict(self) | {"layers": list(self.layers)}

    def __str__(self) -> str:
        return f"layer{'s' * (len(self.layers) > 1)} {', '.join(map(str, self.layers))} in {self.precision}"


def counted_from_embedding(layers: Sequence[int], shape: ModelShape) -> tuple[int, ...]:
    """Return ``layers``, of which negative ones count from the last, as counted from the embedding, 0.

    Raises:
        InputError: for a layer that the model does not have.
    """
    for layer in layers:
        if not -shape.layers - 1 <= layer <= shape.layers:
            raise InputError(
                f"there is no layer {layer}; a model of {shape.layers} layer{'s' * (shape.layers > 1)} has "
                f"hidden states 0 (the embedding) to {shape.layers}, or -1 for the last"
            )
    return tuple(layer % (shape.layers + 1) for layer in layers)
