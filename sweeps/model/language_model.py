"""Interface of models that are trained or distilled from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LanguageModel(Protocol):
    """Language model as a body that returns features, and an output projection from them to logits.

    A model whose logits are more than that product has an ``output_transform`` beside these two, see
    :func:`logits_of`.
    """

    @property
    def model(self) -> nn.Module:
        """Body: tokens ``(batch, time)`` to features ``(batch, time, width)``."""

    @property
    def head(self) -> Tensor:
        """Output projection ``(vocab, width)``."""


OutputTransform = Callable[[Tensor], Tensor]
"""Function of projected features, element by element."""


@dataclass(frozen=True, slots=True)
class SoftCap:
    """Soft cap of logits: ``cap tanh(logits / cap)`` (Gemma 2, Gemma Team 2024, arXiv 2408.00118)."""

    cap: float

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the capped logits, in the same precision and by the same operations as transformers."""
        return torch.tanh(logits / self.cap) * self.cap

    def inverse(self, capped: Tensor) -> Tensor:
        """Return the logits of capped ones, infinite where they are the cap itself."""
        return torch.atanh(capped / self.cap) * self.cap


def logits_of(model: LanguageModel, features: Tensor) -> Tensor:
    """Return the logits ``(..., vocab)`` of ``features`` ``(..., width)``.

    They are the product with the output projection, and where a model has an ``output_transform`` (a soft
    cap), that function of it.
    """
    logits = F.linear(features, model.head)
    transform: OutputTransform | None = getattr(model, "output_transform", None)
    return logits if transform is None else transform(logits)
