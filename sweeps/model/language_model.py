"""Interface of models that are trained or distilled from."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class LanguageModel(Protocol):
    """Language model as a body that returns features, and an output projection from them to logits."""

    @property
    def model(self) -> nn.Module:
        """Body: tokens ``(batch, time)`` to features ``(batch, time, width)``."""

    @property
    def head(self) -> Tensor:
        """Output projection ``(vocab, width)``."""
