"""What a step says of a foreign model: its size and cost as they were counted, and what identifies it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scaling.compute import ModelShape
from sweeps.foreign.files import Place


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedShape(ModelShape):
    """A shape whose parameters were counted from a model, which need not be of the ladder's kind."""

    counted: int
    """N: non-embedding parameters."""
    multiplied: int
    """Those of them that multiply a token: matrices; of experts, the share that a token meets."""

    @property
    def params(self) -> int:
        """N: non-embedding parameters."""
        return self.counted

    @property
    def matrix_params(self) -> int:
        """Parameters that multiply every token."""
        return self.multiplied


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """A model that a sweep measures and distils from, but did not train."""

    place: Place
    fingerprint: str
    """Of its files, or its commit on a hub."""
    tokens: float | None = None
    """D_T, if it is known; no part of the identity."""

    @property
    def name(self) -> str:
        """For tables."""
        return self.place.model if self.place.commit else Path(self.place.model).name
