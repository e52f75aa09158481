"""One training run, supervised or distilled: the loop and the held-out loss."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from scaling.compute import ModelShape
from sweeps.batches import Batches, heldout_batches
from sweeps.checkpoints import Checkpoints
from sweeps.chunked import PerToken, mean_loss
from sweeps.model import Decoder
from sweeps.objectives import cross_entropy, distillation, log_probabilities, z_loss
from sweeps.optimiser import learning_rate, optimiser_for, set_rate
from sweeps.spec import Method, Training

REPORT_SECONDS = 1.0
"""Between two reports of progress."""
CHECKPOINT_SECONDS = 15.0
"""Between two checkpoints: the most that a kill can cost."""

Report = Callable[[int, float], None]
"""Called with the steps done and the training loss, nats/token."""


class Diverged(RuntimeError):
    """The training loss stopped being a number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """A frozen teacher and how the student follows it."""

    model: Decoder
    method: Method


@dataclass(frozen=True, slots=True)
class HeldoutLoss:
    """Cross-entropy on held-out text."""

    loss: float
    """nats/token"""
    standard_error: float
    """nats/token, over blocks of one context each"""
    blocks: int
    by_part: tuple[float, ...] = ()
    """nats/token, for each part of the held-out text"""


def train(
    shape: ModelShape,
    tokens: NDArray[np.integer],
    *,
    steps: int,
    training: Training,
    seed: int,
    data_seed: int | None = None,
    teacher: Teacher | None = None,
    report: Report | None = None,
    checkpoints: Checkpoints | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    start: Checkpoints | None = None,
    stop: int | None = None,
) -> Decoder:
    """A model of ``shape`` trained for ``steps`` optimiser steps on ``tokens``.

    ``seed`` sets the initialisation and ``data_seed``, or else ``seed``, the order of the data; on one device
    the result is a function of the arguments, bit for bit, however often the run was killed and went on from
    its ``checkpoints``, and whether or not it began at the ``start`` of another run that was the same so far.
    With ``stop`` the run ends there, in the midst of its schedule, with its state as the last checkpoint.

    Raises:
        Diverged: if the loss is no longer finite, naming the step.
    """
    keep_memory()
    model = Decoder(shape)
    model.initialise(seed)
    model.to(device()).train()
    optimiser = optimiser_for(model, training)
    first = _restore(model, optimiser, checkpoints, start)
    batch = round(training.batch_tokens / shape.context)
    order = seed if data_seed is None else data_seed
    data = Batches(tokens, context=shape.context, batch=batch, seed=order)
    report_due, save_due = Every(REPORT_SECONDS), Every(checkpoint_seconds)
    end = stop or steps
    for step in range(first, end):
        set_rate(optimiser, learning_rate(step, steps, training))
        loss = objective(model, data[step].to(device()), training, teacher)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)
        last = step == end - 1
        save = checkpoints and (save_due() if not last else stop is not None)
        if last or save or report_due():
            value = loss.item()
            if not math.isfinite(value):
                raise Diverged(f"the training loss is {value} at step {step + 1} of {steps}; lower peak_rate")
            if report:
                report(step + 1, value)
        if checkpoints and save:
            checkpoints.save(step + 1, state_of(model, optimiser))
    return model


def _restore(model: Decoder, optimiser: torch.optim.Optimizer, *places: Checkpoints | None) -> int:
    """Load the newest state from the first place that has one; return the steps it has done."""
    for place in places:
        if place and (found := place.latest()):
            load_state(model, optimiser, found[1])
            return found[0]
    return 0


class Every:
    """True when called the first time after ``seconds`` have passed since it last was."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.since = seconds, time.monotonic()

    def __call__(self) -> bool:
        due = time.monotonic() - self.since >= self.seconds
        if due:
            self.since = time.monotonic()
        return due


def state_of(model: Decoder, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that the next step depends on besides its number: weights and the optimiser's moments."""
    state = dict(model.state_dict())
    for name, parameter in model.named_parameters():
        state |= {f"{key}/{name}": value for key, value in optimiser.state[parameter].items()}
    return state


def load_state(model: Decoder, optimiser: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """The inverse of :func:`state_of`."""
    model.load_state_dict({name: tensor for name, tensor in state.items() if "/" not in name})
    for name, parameter in model.named_parameters():
        own = {key.removesuffix(f"/{name}"): key for key in state if key.endswith(f"/{name}")}
        optimiser.state[parameter] = {key: state[full].to(parameter.device) for key, full in own.items()}


def objective(model: Decoder, blocks: Tensor, training: Training, teacher: Teacher | None) -> Tensor:
    """The training loss on ``blocks`` of shape ``(batch, context + 1)``, a mean in nats/token."""
    inputs, targets = blocks[:, :-1], blocks[:, 1:].flatten()
    features = model.model(inputs).flatten(0, 1)
    if teacher is None:
        return mean_loss(_supervised(training), features, model.head, targets)
    with torch.no_grad():
        taught = teacher.model.model(inputs).flatten(0, 1)
    return mean_loss(_distilled(training, teacher), features, model.head, targets, taught)


def _supervised(training: Training) -> PerToken:
    def per_token(logits: Tensor, targets: Tensor) -> Tensor:
        log_q = log_probabilities(logits)
        return cross_entropy(log_q, targets) + training.z_loss * z_loss(logits, log_q)

    return per_token


def _distilled(training: Training, teacher: Teacher) -> PerToken:
    method = teacher.method
    tau, hard = method.temperature, method.cross_entropy

    def per_token(logits: Tensor, targets: Tensor, taught: Tensor) -> Tensor:
        log_q = log_probabilities(logits)
        soft_q = log_q if tau == 1 else log_probabilities(logits, tau)
        log_p = log_probabilities(F.linear(taught, teacher.model.head), tau)
        loss = (1 - hard) * distillation(method.divergence, log_p, soft_q, tau)
        if hard:
            loss = loss + hard * cross_entropy(log_q, targets)
        return loss + training.z_loss * z_loss(logits, log_q)

    return per_token


@torch.no_grad()
def heldout_loss(
    model: Decoder, tokens: NDArray[np.integer], *, parts: Sequence[int] = (), batch: int = 16
) -> HeldoutLoss:
    """The model's cross-entropy on every whole block of ``tokens``, with its error over blocks.

    ``parts`` are the lengths of the parts that follow each other in ``tokens``; a block belongs to the part
    it begins in.
    """
    model.eval()
    means = np.concatenate(list(_block_means(model, tokens, batch)))
    error = means.std(ddof=1) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    first_tokens = np.arange(len(means)) * model.shape.context
    begins_in = np.searchsorted(np.cumsum(parts), first_tokens, side="right")
    by_part = tuple(float(means[begins_in == part].mean()) for part in range(len(parts)))
    return HeldoutLoss(float(means.mean()), float(error), len(means), by_part)


def _block_means(model: Decoder, tokens: NDArray[np.integer], batch: int) -> Iterator[NDArray[np.float64]]:
    for blocks in heldout_batches(tokens, context=model.shape.context, batch=batch):
        blocks = blocks.to(device())
        losses = cross_entropy(log_probabilities(model(blocks[:, :-1])), blocks[:, 1:])
        yield losses.double().mean(1).cpu().numpy()


def device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def keep_memory() -> None:
    """Let glibc keep freed memory: otherwise page faults dominate large temporaries."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        no_mmap, trim_threshold = -4, -1
        libc.mallopt(no_mmap, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
