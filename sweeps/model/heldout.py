"""Held-out loss, the cross-entropy that laws describe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sweeps.data.batches import heldout_batches
from sweeps.model.chunked_loss import MAX_FULL_LOGITS
from sweeps.model.decoder import Decoder
from sweeps.model.device import device
from sweeps.model.language_model import LanguageModel, logits_of
from sweeps.model.log_probs import cross_entropy, log_probabilities


@dataclass(frozen=True, slots=True)
class HeldoutLoss:
    """Cross-entropy on held-out text."""

    loss: float
    """Cross-entropy, nats/token."""
    standard_error: float
    """Standard error over blocks of one context each, stratified by part, nats/token."""
    blocks: int
    """Number of blocks."""
    by_part: tuple[float, ...] = ()
    """Cross-entropy of each part of the held-out text, nats/token."""


@torch.no_grad()
def heldout_loss(
    model: LanguageModel,
    tokens: NDArray[np.integer],
    *,
    context: int,
    parts: Sequence[int] = (),
    batch: int = 16,
) -> HeldoutLoss:
    """Evaluate the cross-entropy on every whole block of ``tokens``, in float32.

    Args:
        model: the model.
        tokens: held-out tokens.
        context: predicted tokens per block.
        parts: lengths of the parts of ``tokens``, in order; a block belongs to the part it begins in.
        batch: blocks per forward pass.
    """
    if isinstance(model, Decoder):
        model.precision = torch.float32
    return loss_of_blocks(
        block_losses(model, tokens, context=context, batch=batch), context=context, parts=parts
    )


def loss_of_blocks(means: NDArray[np.float64], *, context: int, parts: Sequence[int] = ()) -> HeldoutLoss:
    """Return the loss of held-out text from those of its blocks ``(blocks,)``, in order.

    Arguments are those of :func:`heldout_loss`.
    """
    begins_in = np.searchsorted(np.cumsum(parts), np.arange(len(means)) * context, side="right")
    each = [means[begins_in == part] for part in range(len(parts))]
    return HeldoutLoss(
        float(means.mean()),
        standard_error(means, each),
        len(means),
        tuple(float(own.mean()) for own in each),
    )


@torch.no_grad()
def block_losses(
    model: LanguageModel, tokens: NDArray[np.integer], *, context: int, batch: int = 16
) -> NDArray[np.float64]:
    """Return the cross-entropy of every whole block of ``tokens``, ``(blocks,)``, in the model's precision.

    Arguments are those of :func:`heldout_loss`.
    """
    model.model.eval()
    batch = max(1, min(batch, MAX_FULL_LOGITS // (len(model.head) * context)))
    return np.concatenate(list(_block_means(model, tokens, context, batch)))


def standard_error(means: NDArray[np.float64], parts: Sequence[NDArray[np.float64]] = ()) -> float:
    """Return the standard error of the mean of ``means``, stratified by ``parts``."""
    if len(means) < 2 or not np.isfinite(means).all():
        return math.nan
    strata = parts if parts and min(map(len, parts)) > 1 else [means]
    return math.sqrt(sum(len(own) * own.var(ddof=1) for own in strata)) / len(means)


def _block_means(
    model: LanguageModel, tokens: NDArray[np.integer], context: int, batch: int
) -> Iterator[NDArray[np.float64]]:
    for blocks in heldout_batches(tokens, context=context, batch=batch):
        blocks = blocks.to(device())
        logits = logits_of(model, model.model(blocks[:, :-1]))
        losses = cross_entropy(log_probabilities(logits), blocks[:, 1:])
        yield losses.double().mean(1).cpu().numpy()
