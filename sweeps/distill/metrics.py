"""What is measured of every distilled student beside its loss, the same for every method.

Methods that follow their own divergence may be best by it and worse by others: fit, and compare, by several.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sweeps.data.batches import take_blocks
from sweeps.distill.divergences import expectation, forward_kl, reverse_kl
from sweeps.distill.sampling import uniform, write
from sweeps.model.compiled import uncompiled
from sweeps.model.decoder import Decoder
from sweeps.model.device import device
from sweeps.model.language_model import LanguageModel
from sweeps.model.log_probs import cross_entropy, log_probabilities

READ, WRITTEN, AT_ONCE = 32, 16, 2**23
"""Blocks that are read, and that are written; elements of their logits, at most, at a time."""
SEED = 20230608


def yardsticks(
    student: Decoder, teacher: LanguageModel, tokens: NDArray[np.integer], context: int
) -> dict[str, float]:
    """``student`` against ``teacher``, in nats/token and in float32, on some blocks of held-out ``tokens``.

    - ``forward_kl``, ``reverse_kl``: KL(p || q) and KL(q || p) on the text itself;
    - ``entropy``: the student's, there;
    - ``likelihood_risk``: -log p of what the student writes: how unlikely the teacher finds it;
    - ``coverage_risk``: -log q of what the teacher writes: how little of that the student would.

    Both write after the same prompts, a quarter of the context, by the same numbers.
    """
    teacher = uncompiled(teacher)
    count = (len(tokens) - 1) // context
    blocks = take_blocks(tokens, sorted({n * count // READ for n in range(READ)}), context).to(device())
    prompts = blocks[:WRITTEN, : max(1, context // 4)]
    numbers = uniform(len(prompts), context + 1 - prompts.shape[1], SEED)
    with torch.no_grad(), _in_full(student), _in_full(teacher):
        size = max(1, AT_ONCE // len(student.head) // context)
        read = torch.cat([_apart(student, teacher, some[:, :-1]) for some in blocks.split(size)])
        likelihood, coverage = (
            _risk(reader, write([writer], prompts, numbers).blocks, numbers.shape[1])
            for writer, reader in ((student, teacher), (teacher, student))
        )
    forward, reverse, entropy = read.double().mean(0).tolist()
    return {
        "forward_kl": forward,
        "reverse_kl": reverse,
        "entropy": entropy,
        "likelihood_risk": likelihood,
        "coverage_risk": coverage,
    }


def _risk(reader: LanguageModel, blocks: Tensor, written: int) -> float:
    """What the last ``written`` tokens of ``blocks`` cost ``reader``, nats/token."""
    log_p = log_probabilities(F.linear(reader.model(blocks[:, :-1])[:, -written:], reader.head))
    return cross_entropy(log_p, blocks[:, -written:]).mean().item()


def _apart(student: LanguageModel, teacher: LanguageModel, inputs: Tensor) -> Tensor:
    """Both divergences and the student's entropy, at each token: ``(batch * time, 3)``."""
    log_q, log_p = (
        log_probabilities(F.linear(model.model(inputs), model.head)).flatten(0, 1)
        for model in (student, teacher)
    )
    entropy = -expectation(log_q, log_q)
    return torch.stack([forward_kl(log_p, log_q), reverse_kl(log_p, log_q), entropy], -1)


@contextmanager
def _in_full(model: LanguageModel) -> Iterator[None]:
    """Within this, ``model`` multiplies in float32."""
    before = model.precision if isinstance(model, Decoder) else None
    if isinstance(model, Decoder):
        model.precision = torch.float32
    yield
    if isinstance(model, Decoder) and before is not None:
        model.precision = before
