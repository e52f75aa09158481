"""A loss over a large vocabulary without ever holding its logits, forward or backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LOGITS_AT_ONCE = 2**23
"""Elements of logits that are simply held: 32 MB in float32."""
BLOCK, BLOCK_IN_FULL = 2**24, 2**22
"""Elements of a block of others, in bfloat16, whose products pay from more rows on, and in float32."""

PerToken = Callable[..., Tensor]
"""From student logits ``(rows, vocab)`` and further rows to one loss a row."""


def mean_loss(per_token: PerToken, features: Tensor, weight: Tensor, *rows: Tensor) -> Tensor:
    """The mean over rows of ``per_token(features @ weight.T, *rows)``.

    Where the logits fit into ``LOGITS_AT_ONCE`` they are computed plainly. Otherwise blocks of rows are taken
    forward and backward one after the other, so that memory does not grow with rows x vocabulary and the
    logits are computed once, not again in the backward pass.

    Args:
        per_token: the loss, in float32; must treat rows independently.
        features: ``(rows, width)``.
        weight: ``(vocab, width)``, of the same precision, in which the products are computed.
        rows: what else a row needs (labels, teacher features), each ``(rows, ...)``, without gradient.
    """
    if fits(len(features), len(weight)):
        return per_token(F.linear(features, weight), *rows).mean()
    total: Tensor = _Blocks.apply(features, weight, per_token, rows)
    return total / len(features)


@torch.no_grad()
def of_each(per_token: PerToken, features: Tensor, weight: Tensor, *rows: Tensor) -> Tensor:
    """``per_token(features @ weight.T, *rows)``, a block of rows after the other, without gradient."""
    size = max(1, BLOCK_IN_FULL // len(weight))
    blocks = zip(*(each.split(size) for each in (features, *rows)), strict=True)
    return torch.cat([per_token(F.linear(x, weight), *others) for x, *others in blocks])


def fits(rows: int, vocab: int) -> bool:
    """Whether the logits of ``rows`` tokens are few enough to be held."""
    return rows * vocab <= LOGITS_AT_ONCE


class _Blocks(torch.autograd.Function):
    """Sum of the losses of all blocks; gradients are accumulated, in float32, while going forward."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, per_token: PerToken, rows: tuple[Tensor, ...]
    ) -> Tensor:
        full = torch.promote_types(weight.dtype, torch.float32)
        size = max(1, (BLOCK_IN_FULL if weight.dtype == full else BLOCK) // len(weight))
        to_features, to_weight = torch.empty_like(features), torch.zeros_like(weight, dtype=full)
        total = to_weight.new_zeros(())
        for start in range(0, len(features), size):
            block = slice(start, start + size)
            x = features[block]
            with torch.enable_grad():
                logits = F.linear(x.detach(), weight.detach()).requires_grad_()
                loss = per_token(logits, *(row[block] for row in rows)).sum()
                (gradient,) = torch.autograd.grad(loss, logits)
            torch.mm(gradient, weight, out=to_features[block])
            if weight.dtype == full:
                to_weight.addmm_(gradient.T, x)
            else:
                to_weight += gradient.T @ x
            total += loss.detach()
        ctx.save_for_backward(to_features, to_weight.to(weight.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_features, to_weight = ctx.saved_tensors  # scaled in place: a second copy may be most of the memory
        return to_features.mul_(gradients[0]), to_weight.mul_(gradients[0]), None, None
