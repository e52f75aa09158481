"""Interface of every model that trains or teaches."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class LanguageModel(Protocol):
    """What trains and teaches: features, and the output projection that turns them into logits."""

    @property
    def model(self) -> nn.Module:
        """Tokens ``(batch, time)`` to features ``(batch, time, width)``."""

    @property
    def head(self) -> Tensor:
        """The output projection ``(vocab, width)``."""
