"""What a step says of a foreign model: its size and cost as they were counted, and what identifies it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scaling.costs.flops import ModelShape
from sweeps.data.model_dir import Place

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """Cost of all layers whose tokens see equally far."""

    flops_per_pair: float
    """FLOPs of a token and one that it attends to, in all of these layers together."""
    reach: int | None = None
    """Tokens that a token sees, itself included; all before it if None."""
    chunked: bool = False
    """Whether they are those of its chunk of ``reach`` tokens, rather than the last ones."""

    def flops(self, context: int) -> float:
        """FLOPs a token, on average over a text of ``context`` tokens."""
        if self.reach is None or self.reach >= context:
            return self.flops_per_pair * context / 2
        if self.chunked:
            return self.flops_per_pair * self.reach / 2
        return self.flops_per_pair * self.reach * (1 - self.reach / (2 * context))


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedShape(ModelShape):
    """A shape whose parameters and FLOPs were counted, of a model that need not be of the ladder's kind."""

    counted: int
    """N: non-embedding parameters that text meets; no vision tower."""
    active: int
    """Those of them that one token meets: of experts, the share that it is sent to."""
    embedded: int
    """Parameters of tables and of the output projection: tokens, positions, layers' own."""
    loaded: int
    """Every parameter in memory, unused ones too."""
    head_width: int
    """Of what the output projection reads."""
    fixed_flops: float
    """FLOPs a token, but for attention and the output projection."""
    attention: tuple[Attention, ...] = ()

    @classmethod
    def read(cls, data: dict[str, Any]) -> CountedShape:
        """The inverse of :func:`dataclasses.asdict`, also for stores from before FLOPs were counted."""
        if "multiplied" not in data:
            return cls(**data)
        rest = {name: value for name, value in data.items() if name != "multiplied"}
        embedded = data["vocab"] * data["width"] * (1 if data["tied"] else 2)
        per_pair = data["layers"] * data["heads"] * (4 * data["head_dim"] + 5.0)
        return cls(
            **rest,
            active=data["multiplied"],
            embedded=embedded,
            loaded=data["counted"] + embedded,
            head_width=data["width"],
            fixed_flops=2.0 * data["multiplied"],
            attention=(Attention(flops_per_pair=per_pair),),
        )

    def __post_init__(self) -> None:
        ModelShape.__post_init__(self)
        groups: Any = self.attention
        read = (each if isinstance(each, Attention) else Attention(**each) for each in groups)
        object.__setattr__(self, "attention", tuple(read))

    @property
    def identity(self) -> dict[str, int]:
        """What of it changes numbers, the model itself being known: how it was counted does not."""
        return {"vocab": self.vocab, "context": self.context}

    @property
    def params(self) -> int:
        """N: non-embedding parameters."""
        return self.counted

    @property
    def matrix_params(self) -> int:
        """Parameters that a token meets."""
        return self.active

    @property
    def embedding_params(self) -> int:
        """Parameters of embeddings and of the output projection."""
        return self.embedded

    @property
    def total_params(self) -> int:
        """Every parameter in the checkpoint."""
        return self.loaded

    @property
    def forward_flops(self) -> float:
        """FLOPs a token of one forward pass over a full context."""
        attention = sum(each.flops(self.context) for each in self.attention)
        return self.fixed_flops + attention + 2.0 * self.width + 2.0 * self.vocab * self.head_width


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """A model that a sweep measures and distils from, but did not train."""

    place: Place
    fingerprint: str
    """Of its files, or its commit on a hub."""
    tokens: float | None = None
    """D_T, if it is known; no part of the identity."""
    heldout_tokens: int = 0
    """Tokens that it is measured on; no part of the identity."""
    precision: Precision = "fp32"
    """In which it is loaded, measured and followed."""

    @property
    def name(self) -> str:
        """For tables."""
        return self.place.model if self.place.commit else Path(self.place.model).name
