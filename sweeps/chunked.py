"""A loss over a large vocabulary without ever holding its logits, forward or backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LOGITS_AT_ONCE = 2**23
"""Elements of a block of logits: 32 MB in float32."""

PerToken = Callable[..., Tensor]
"""From student logits ``(rows, vocab)`` and further rows to one loss a row."""


def mean_loss(per_token: PerToken, features: Tensor, weight: Tensor, *rows: Tensor) -> Tensor:
    """The mean over rows of ``per_token(features @ weight.T, *rows)``.

    Where the logits fit into ``LOGITS_AT_ONCE`` they are computed plainly. Otherwise blocks of rows are taken
    forward and backward one after the other, so that memory does not grow with rows x vocabulary and the
    logits are computed once, not again in the backward pass.

    Args:
        per_token: the loss; must treat rows independently.
        features: ``(rows, width)``.
        weight: ``(vocab, width)``.
        rows: what else a row needs (targets, teacher features), each ``(rows, ...)``, without gradient.
    """
    size = max(1, LOGITS_AT_ONCE // len(weight))
    if len(features) <= size:
        return per_token(F.linear(features, weight), *rows).mean()
    total: Tensor = _Blocks.apply(features, weight, per_token, size, rows)
    return total / len(features)


class _Blocks(torch.autograd.Function):
    """Sum of the losses of all blocks; gradients are accumulated while going forward."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, per_token: PerToken, size: int, rows: tuple[Tensor, ...]
    ) -> Tensor:
        to_features, to_weight = torch.empty_like(features), torch.zeros_like(weight)
        total = features.new_zeros(())
        for start in range(0, len(features), size):
            block = slice(start, start + size)
            with torch.enable_grad():
                x, w = features[block].detach().requires_grad_(), weight.detach().requires_grad_()
                loss = per_token(F.linear(x, w), *(row[block] for row in rows)).sum()
                to_features[block], gradient = torch.autograd.grad(loss, (x, w))
            to_weight += gradient
            total += loss.detach()
        ctx.save_for_backward(to_features, to_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_features, to_weight = ctx.saved_tensors
        return to_features * gradients[0], to_weight * gradients[0], None, None, None
