"""The distribution that a student is pulled towards, and how a loss gets at it.

A target gives, once a batch, the rows that a loss over blocks of rows needs; and from such rows the teacher's
log-probabilities. Students that share a teacher and the order of the data share the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sweeps.objectives import log_probabilities


class LanguageModel(Protocol):
    """What trains and teaches: features, and the output projection that turns them into logits."""

    @property
    def model(self) -> nn.Module:
        """Tokens ``(batch, time)`` to features ``(batch, time, width)``."""

    @property
    def head(self) -> Tensor:
        """The output projection ``(vocab, width)``."""


class Target(Protocol):
    """A teacher's distribution over the next token."""

    def rows(self, inputs: Tensor) -> Tensor:
        """What a loss needs of each token of ``inputs`` ``(batch, time)``: ``(batch * time, ...)``."""

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """``(rows, vocab)``, softened by ``temperature``."""


@dataclass(frozen=True, slots=True)
class Online:
    """A frozen teacher that reads every batch itself."""

    teacher: LanguageModel

    @torch.no_grad()
    def rows(self, inputs: Tensor) -> Tensor:
        """The teacher's features."""
        return self.teacher.model(inputs).flatten(0, 1)

    @torch.no_grad()
    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """From the teacher's features."""
        return log_probabilities(F.linear(rows, self.teacher.head), temperature)
