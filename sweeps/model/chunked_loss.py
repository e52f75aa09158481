"""Loss over a large vocabulary in chunks, without holding all logits in the forward or backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MAX_FULL_LOGITS = 2**23
"""Largest number of logits that are computed at once: 32 MB in float32."""
LOGITS_PER_CHUNK, FP32_LOGITS_PER_CHUNK = 2**24, 2**22
"""Logits in a chunk, in bfloat16, whose products are efficient for more rows only, and in float32."""

PerToken = Callable[..., Tensor]
"""Function from student logits ``(rows, vocab)`` and further rows to one loss per row."""


def mean_loss(per_token: PerToken, features: Tensor, weight: Tensor, *rows: Tensor) -> Tensor:
    """Return the mean over rows of ``per_token(features @ weight.T, *rows)``.

    Up to ``MAX_FULL_LOGITS`` the logits are computed at once. Beyond, chunks of rows go through the forward
    and backward pass one after the other, so that memory does not grow with rows x vocabulary and the logits
    are not recomputed in the backward pass.

    Args:
        per_token: the loss, in float32; must treat rows independently.
        features: ``(rows, width)``.
        weight: ``(vocab, width)``, of the same precision, in which the products are computed.
        rows: further inputs of a row (labels, teacher features), each ``(rows, ...)``, without gradient.
    """
    if logits_fit(len(features), len(weight)):
        return per_token(F.linear(features, weight), *rows).mean()
    total: Tensor = _ChunkedLoss.apply(features, weight, per_token, rows)
    return total / len(features)


@torch.no_grad()
def per_token_loss(per_token: PerToken, features: Tensor, weight: Tensor, *rows: Tensor) -> Tensor:
    """Return ``per_token(features @ weight.T, *rows)`` in chunks of rows, without gradient."""
    size = max(1, FP32_LOGITS_PER_CHUNK // len(weight))
    blocks = zip(*(each.split(size) for each in (features, *rows)), strict=True)
    return torch.cat([per_token(F.linear(x, weight), *others) for x, *others in blocks])


def logits_fit(rows: int, vocab: int) -> bool:
    """Return True if the logits of ``rows`` tokens are few enough to be computed at once."""
    return rows * vocab <= MAX_FULL_LOGITS


class _ChunkedLoss(torch.autograd.Function):
    """Sum of the losses of all chunks; gradients are accumulated, in float32, in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, per_token: PerToken, rows: tuple[Tensor, ...]
    ) -> Tensor:
        full = torch.promote_types(weight.dtype, torch.float32)
        size = max(1, (FP32_LOGITS_PER_CHUNK if weight.dtype == full else LOGITS_PER_CHUNK) // len(weight))
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
        to_features, to_weight = ctx.saved_tensors  # scaled in place, as a copy may be most of the memory
        return to_features.mul_(gradients[0]), to_weight.mul_(gradients[0]), None, None
