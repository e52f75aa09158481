"""Held-out loss, the cross-entropy that laws describe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sweeps.data.batches import heldout_batches
from sweeps.model.chunked_loss import MAX_FULL_LOGITS
from sweeps.model.decoder import Decoder
from sweeps.model.device import device
from sweeps.model.distributed import ONE_PROCESS, World
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
    world: World = ONE_PROCESS,
) -> HeldoutLoss:
    """Evaluate the cross-entropy on every whole block of ``tokens``, in float32.

    The number of processes changes no bit of it.

    Args:
        model: the model.
        tokens: held-out tokens.
        context: predicted tokens per block.
        parts: lengths of the parts of ``tokens``, in order; a block belongs to the part it begins in.
        batch: blocks per forward pass.
        world: processes that share the work, all of which call it.
    """
    if isinstance(model, Decoder):
        model.precision = torch.float32
    return loss_of_blocks(
        block_losses(model, tokens, context=context, batch=batch, world=world), context=context, parts=parts
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
    model: LanguageModel,
    tokens: NDArray[np.integer],
    *,
    context: int,
    batch: int = 16,
    world: World = ONE_PROCESS,
) -> NDArray[np.float64]:
    """Return the cross-entropy of every whole block of ``tokens``, ``(blocks,)``, in the model's precision.

    Arguments are those of :func:`heldout_loss`.
    """
    model.model.eval()
    batch = max(1, min(batch, MAX_FULL_LOGITS // (len(model.head) * context)))
    batches, found = heldout_batches(tokens, context=context, batch=batch), list[Tensor]()
    while some := list(islice(batches, world.size)):
        own = _block_means(model, some[min(world.rank, len(some) - 1)])  # a sharded model needs all processes
        others = (torch.zeros(len(blocks), dtype=torch.float64) for blocks in some)
        found += [own if rank == world.rank else zeros for rank, zeros in enumerate(others)]
    return world.total(torch.cat(found)).numpy()


def standard_error(means: NDArray[np.float64], parts: Sequence[NDArray[np.float64]] = ()) -> float:
    """Return the standard error of the mean of ``means``, stratified by ``parts``."""
    if len(means) < 2 or not np.isfinite(means).all():
        return math.nan
    strata = parts if parts and min(map(len, parts)) > 1 else [means]
    return math.sqrt(sum(len(own) * own.var(ddof=1) for own in strata)) / len(means)


def _block_means(model: LanguageModel, blocks: Tensor) -> Tensor:
    """Return the cross-entropy of each block, in float64 on the CPU."""
    blocks = blocks.to(device())
    logits = logits_of(model, model.model(blocks[:, :-1]))
    return cross_entropy(log_probabilities(logits), blocks[:, 1:]).double().mean(1).cpu()
