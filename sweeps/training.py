"""One training run, supervised or distilled: the loop and the held-out loss."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling.compute import ModelShape
from sweeps.batches import Batches, heldout_batches
from sweeps.model import Decoder
from sweeps.objectives import DIVERGENCES, cross_entropy, z_loss
from sweeps.optimiser import learning_rate, optimiser_for, set_rate
from sweeps.spec import Method, Training

REPORT_EVERY = 1.0
"""Seconds between two reports of progress."""

Report = Callable[[int, float], None]
"""Called with the steps done and the training loss, nats/token."""


class Diverged(RuntimeError):
    """The training loss stopped being a number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """A frozen teacher and how the student follows it."""

    model: Decoder
    method: Method


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldoutLoss:
    """Cross-entropy on held-out text."""

    loss: float
    """nats/token"""
    standard_error: float
    """nats/token, over blocks of one context each"""
    blocks: int


def train(
    shape: ModelShape,
    tokens: NDArray[np.integer],
    *,
    steps: int,
    training: Training,
    seed: int,
    teacher: Teacher | None = None,
    report: Report | None = None,
) -> Decoder:
    """A model of ``shape`` trained for ``steps`` optimiser steps on ``tokens``.

    ``seed`` sets initialisation and data order; on one device the result is a function of the arguments.

    Raises:
        Diverged: if the loss is no longer finite, naming the step.
    """
    keep_memory()
    model = Decoder(shape)
    model.initialise(seed)
    model.to(device()).train()
    optimiser = optimiser_for(model, training)
    data = Batches(
        tokens, context=shape.context, batch=round(training.batch_tokens / shape.context), seed=seed
    )
    reported = time.monotonic()
    for step in range(steps):
        set_rate(optimiser, learning_rate(step, steps, training))
        loss = objective(model, data[step].to(device()), training, teacher)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)
        if time.monotonic() - reported > REPORT_EVERY or step == steps - 1:
            value, reported = loss.item(), time.monotonic()
            if not math.isfinite(value):
                raise Diverged(f"the training loss is {value} at step {step + 1} of {steps}; lower peak_rate")
            if report:
                report(step + 1, value)
    return model


def objective(model: Decoder, blocks: Tensor, training: Training, teacher: Teacher | None) -> Tensor:
    """The training loss on ``blocks`` of shape ``(batch, context + 1)``, nats/token."""
    inputs, targets = blocks[:, :-1], blocks[:, 1:]
    logits = model(inputs)
    if teacher is None:
        loss = cross_entropy(logits, targets)
    else:
        method = teacher.method
        with torch.no_grad():
            taught = teacher.model(inputs)
        divergence = DIVERGENCES[method.divergence](logits, taught, method.temperature)
        loss = (1 - method.cross_entropy) * divergence
        if method.cross_entropy:
            loss = loss + method.cross_entropy * cross_entropy(logits, targets)
    return loss + training.z_loss * z_loss(logits) if training.z_loss else loss


@torch.no_grad()
def heldout_loss(model: Decoder, tokens: NDArray[np.integer], *, batch: int = 16) -> HeldoutLoss:
    """The model's cross-entropy on every whole block of ``tokens``, with its error over blocks."""
    model.eval()
    means = np.concatenate(list(_block_means(model, tokens, batch)))
    error = means.std(ddof=1) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return HeldoutLoss(loss=float(means.mean()), standard_error=float(error), blocks=len(means))


def _block_means(model: Decoder, tokens: NDArray[np.integer], batch: int) -> Iterator[NDArray[np.float64]]:
    for blocks in heldout_batches(tokens, context=model.shape.context, batch=batch):
        blocks = blocks.to(device())
        logits = model(blocks[:, :-1]).flatten(0, 1)
        losses = torch.nn.functional.cross_entropy(logits, blocks[:, 1:].flatten(), reduction="none")
        yield losses.view(len(blocks), -1).double().mean(1).cpu().numpy()


def device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def keep_memory() -> None:
    """Let glibc keep freed memory: otherwise page faults dominate large temporaries."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        no_mmap, trim_threshold = -4, -1
        libc.mallopt(no_mmap, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
