"""Shape of an external model, a model that the sweep did not train: counted size, cost and identity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scaling.costs.flops import ModelShape
from sweeps.data.model_dir import ModelLocation

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionCost:
    """Attention cost of all layers with one window."""

    flops_per_pair: float
    """FLOPs of one query-key pair, summed over these layers."""
    reach: int | None = None
    """Window in tokens, the token itself included; None for full attention."""
    chunked: bool = False
    """True if the window is the token's chunk of ``reach`` tokens, not the last ``reach`` tokens."""

    def flops(self, context: int) -> float:
        """Return FLOPs per token, averaged over a sequence of ``context`` tokens."""
        if self.reach is None or self.reach >= context:
            return self.flops_per_pair * context / 2
        if self.chunked:
            return self.flops_per_pair * self.reach / 2
        return self.flops_per_pair * self.reach * (1 - self.reach / (2 * context))


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedShape(ModelShape):
    """Shape of a model of any architecture, with counted parameters and FLOPs."""

    counted: int
    """N: non-embedding parameters used for text, without vision towers."""
    active: int
    """Non-embedding parameters used per token: of experts, those that a token is routed to."""
    embedded: int
    """Parameters of all embedding tables (tokens, positions, per layer) and of the output projection."""
    loaded: int
    """All parameters in memory, unused ones included."""
    head_width: int
    """Input width of the output projection."""
    fixed_flops: float
    """FLOPs per token, without attention and the output projection."""
    attention: tuple[AttentionCost, ...] = ()

    @classmethod
    def read(cls, data: dict[str, Any]) -> CountedShape:
        """Invert :func:`dataclasses.asdict`, also for stores written before FLOPs were counted."""
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
            attention=(AttentionCost(flops_per_pair=per_pair),),
        )

    def __post_init__(self) -> None:
        ModelShape.__post_init__(self)
        groups: Any = self.attention
        read = (each if isinstance(each, AttentionCost) else AttentionCost(**each) for each in groups)
        object.__setattr__(self, "attention", tuple(read))

    @property
    def identity(self) -> dict[str, int]:
        """Fields that are part of a step's identity beside the model's fingerprint."""
        return {"vocab": self.vocab, "context": self.context}

    @property
    def params(self) -> int:
        """N: non-embedding parameters."""
        return self.counted

    @property
    def matrix_params(self) -> int:
        """Non-embedding parameters used per token."""
        return self.active

    @property
    def embedding_params(self) -> int:
        """Parameters of embeddings and of the output projection."""
        return self.embedded

    @property
    def total_params(self) -> int:
        """All parameters of the checkpoint."""
        return self.loaded

    @property
    def forward_flops(self) -> float:
        """FLOPs per token of a forward pass over a full context."""
        attention = sum(each.flops(self.context) for each in self.attention)
        return self.fixed_flops + attention + 2.0 * self.width + 2.0 * self.vocab * self.head_width


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """Model that a server answers for."""

    url: str
    """URL of the server, up to ``/v1``; not part of the identity."""
    name: str
    """Name of the model there."""
    revision: str
    """Description of what is served, from the spec."""
    tokens_per_second: float | None = None
    """Speed that the spec states; not part of the identity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalModel:
    """Model that a sweep evaluates and distils from, but did not train."""

    place: ModelLocation
    fingerprint: str
    """Hash of its files, or of its commit on a hub."""
    tokens: float | None = None
    """D_T, if known; not part of the identity."""
    heldout_tokens: int = 0
    """Held-out tokens of its evaluation; not part of the identity."""
    precision: Precision = "fp32"
    """Precision in which it is loaded, evaluated and distilled from."""
    quantization: str | None = None
    """Method by which its checkpoint is quantized; its fingerprint covers it."""
    file_bytes: int | None = None
    """Bytes of the weights of a quantized checkpoint, if known; not part of the identity."""
    served: ServedModel | None = None
    """The server that answers for it, if its weights are not here; its fingerprint covers what is served."""

    @classmethod
    def read(cls, data: dict[str, Any]) -> ExternalModel:
        """Invert :func:`dataclasses.asdict`."""
        served = data.get("served")
        parts = {"place": ModelLocation(**data["place"]), "served": ServedModel(**served) if served else None}
        return cls(**data | parts)

    @property
    def name(self) -> str:
        """Name in tables."""
        return self.place.model if self.place.commit else Path(self.place.model).name
