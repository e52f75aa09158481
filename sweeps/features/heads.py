"""Heads that predict a teacher's features from a student's."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from sweeps.features.normalization import Normalization


class FeatureHead(nn.Module):
    """Linear layer, or residual network that ends in one, from a student's features to a teacher's.

    With ``hidden`` it is the head of AM-RADIO (Ranzinger et al. 2024, arXiv 2312.06709): a linear layer, then
    ``blocks`` of x + Linear(GELU(LayerNorm(x))), then LayerNorm, GELU and the last linear layer, whose bias
    begins at zero.

    Args:
        student_width: Channels of the student's features.
        teacher_width: Channels of the teacher's.
        hidden: Width between them; None for a single linear layer.
        blocks: Residual blocks; they need ``hidden``.
    """

    def __init__(
        self, student_width: int, teacher_width: int, hidden: int | None = None, blocks: int = 2
    ) -> None:
        super().__init__()
        self.body: nn.Sequential = nn.Sequential()
        if hidden is not None:
            self.body.append(nn.Linear(student_width, hidden))
            self.body.extend(ResidualBlock(hidden) for _ in range(blocks))
            self.body.extend([nn.LayerNorm(hidden), nn.GELU()])
        self.last = nn.Linear(student_width if hidden is None else hidden, teacher_width)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return predictions ``(..., teacher_width)`` of features ``(..., student_width)``."""
        return self.last(self.body(features))

    def folded(self, normalization: Normalization) -> FeatureHead:
        """Return a copy that predicts the teacher's features where this head predicts normalized ones."""
        made = copy.deepcopy(self)
        made.last = normalization.folded(made.last)
        return made


class ResidualBlock(nn.Module):
    """x + Linear(GELU(LayerNorm(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.step = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        return features + self.step(features)
