"""Losses between predicted and target features at every position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from scaling.errors import InputError

LossName = Literal["mse", "smooth-l1", "cosine", "hybrid-mse", "hybrid-smooth-l1"]
FEATURE_LOSSES: tuple[LossName, ...] = get_args(LossName)


@dataclass(frozen=True, slots=True)
class FeatureLoss:
    """Loss at each position, a mean over its channels.

    >>> loss = FeatureLoss("hybrid-mse", cosine_share=0.5)
    >>> loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([1.])
    """

    name: LossName = "mse"
    beta: float = 1.0
    """Error at which smooth L1 turns from quadratic to linear, as in PyTorch; NVIDIA's TAO has 2."""
    cosine_share: float = 0.9
    """Share of 1 - cosine in a hybrid loss; the paper's."""

    def __post_init__(self) -> None:
        """Refuse options that make no sense.

        Raises:
            InputError: if an option is out of range.
        """
        if self.name not in FEATURE_LOSSES:
            raise InputError(f"loss: {self.name!r} is none of {', '.join(FEATURE_LOSSES)}")
        if not self.beta > 0:
            raise InputError(f"beta: {self.beta:g} must be above zero")
        if not 0 <= self.cosine_share <= 1:
            raise InputError(f"cosine_share: {self.cosine_share:g} is not from 0 to 1")

    def __call__(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the loss of ``predicted`` ``(..., C)`` from ``target`` of the same shape, ``(...)``.

        It is computed in float32 at least.

        Raises:
            InputError: if the shapes differ.
        """
        if predicted.shape != target.shape:
            raise InputError(
                f"features: predicted shape {tuple(predicted.shape)}, target {tuple(target.shape)}; "
                "they must be equal"
            )
        kind = torch.promote_types(torch.promote_types(predicted.dtype, target.dtype), torch.float32)
        predicted, target = predicted.to(kind), target.to(kind)
        if self.name == "cosine":
            return cosine_distance(predicted, target)
        distance = self._distances()[self.name.removeprefix("hybrid-")](predicted, target)
        if not self.name.startswith("hybrid-"):
            return distance
        return torch.lerp(distance, cosine_distance(predicted, target), self.cosine_share)

    def _distances(self) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        return {
            "mse": lambda x, y: (x - y).square().mean(-1),
            "smooth-l1": lambda x, y: F.smooth_l1_loss(x, y, reduction="none", beta=self.beta).mean(-1),
        }


def cosine_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Return 1 - cos of the angle between vectors ``(..., C)``, ``(...)``; 1 where one is zero."""
    return 1 - F.cosine_similarity(predicted, target, dim=-1)


def combined_loss(
    losses: Sequence[Tensor], weights: Sequence[float] | None = None, mask: Tensor | None = None
) -> Tensor:
    """Return the sum over teachers of weight times the mean loss of the positions that count.

    Args:
        losses: One tensor a teacher, all of one shape.
        weights: One a teacher; 1 each by default, as in the paper.
        mask: True where a position counts, of that shape.

    Raises:
        InputError: if there is not one weight a teacher, or no position counts.
    """
    given = [1.0] * len(losses) if weights is None else weights
    if len(given) != len(losses) or not losses:
        raise InputError(f"weights: {len(given)} for {len(losses)} teachers; give one each")
    if mask is not None and not bool(mask.any()):
        raise InputError("mask: no position counts; a mean over none has no value")
    means = [each.mean() if mask is None else each[mask].mean() for each in losses]
    return torch.stack([weight * mean for weight, mean in zip(given, means, strict=True)]).sum()
