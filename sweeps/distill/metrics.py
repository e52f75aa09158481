"""Metrics of every distilled student beside its loss, the same for every method.

Methods that follow their own divergence may be best by it and worse by others: fit, and compare, by several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling.errors import InputError
from sweeps.data.batches import take_blocks
from sweeps.distill.divergences import expectation, forward_kl, reverse_kl
from sweeps.distill.generation.sampling import uniform_numbers, write
from sweeps.model.compiling.compiled import uncompiled
from sweeps.model.decoder import Decoder
from sweeps.model.device import device
from sweeps.model.language_model import LanguageModel, logits_of
from sweeps.model.log_probs import cross_entropy, log_probabilities
from sweeps.spec.method.interfaces import MethodPart
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.method.registry import STANDARD_METRICS
from sweeps.spec.method.run_views import Evaluation
from sweeps.store.records import COLUMNS, THROUGHPUT_COLUMNS

READ, WRITTEN, AT_ONCE = 32, 16, 2**23
"""Blocks that are read, and that are written; elements of their logits, at most, at a time."""
SEED = 20230608


@torch.no_grad()
def measure_divergences(
    student: Decoder, teacher: LanguageModel, tokens: NDArray[np.integer], context: int
) -> dict[str, float]:
    """Measure ``student`` against ``teacher`` on some blocks of held-out ``tokens``, nats/token, in float32.

    Returns:
        ``forward_kl`` and ``reverse_kl``, KL(p || q) and KL(q || p), and ``entropy``, the student's.
    """
    teacher = uncompiled(teacher)
    blocks = _blocks(tokens, context)
    with in_float32(student), in_float32(teacher):
        size = max(1, AT_ONCE // len(student.head) // context)
        read = torch.cat([_both_read(student, teacher, some[:, :-1]) for some in blocks.split(size)])
    forward, reverse, entropy = read.double().mean(0).tolist()
    return {"forward_kl": forward, "reverse_kl": reverse, "entropy": entropy}


@torch.no_grad()
def cross_likelihood(
    student: Decoder, teacher: LanguageModel, tokens: NDArray[np.integer], context: int
) -> dict[str, float]:
    """Measure how likely each finds what the other writes, nats/token, in float32.

    Both write after the same prompts, a quarter of the context, by the same numbers.

    Returns:
        ``likelihood_risk``, -log p of the student's text, and ``coverage_risk``, -log q of the teacher's.
    """
    teacher = uncompiled(teacher)
    prompts = _blocks(tokens, context)[:WRITTEN, : max(1, context // 4)]
    numbers = uniform_numbers(len(prompts), context + 1 - prompts.shape[1], SEED)
    with in_float32(student), in_float32(teacher):
        likelihood, coverage = (
            _risk(reader, write([writer], prompts, numbers).blocks, numbers.shape[1])
            for writer, reader in ((student, teacher), (teacher, student))
        )
    return {"likelihood_risk": likelihood, "coverage_risk": coverage}


def measured(method: Method, evaluation: Evaluation, *, standard: bool = True) -> dict[str, float]:
    """Return all metrics of a run with ``method``, by name; its own alone, if not the ``standard`` ones too.

    Raises:
        InputError: if two metrics have one name, or that of another column, or one is not a number.
    """
    found: dict[str, float] = {}
    for metric in parts_of(method).metrics[0 if standard else len(STANDARD_METRICS) :]:
        for name, value in named_values(metric, metric.measure(evaluation)):
            if name in found:
                raise InputError(f"metrics: {type(metric).__name__}: {name} is the name of another metric")
            found[name] = value
    return found


def named_values(part: MethodPart, values: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yield names and values of a metric, or of what another part measured.

    Raises:
        InputError: if a name is that of a column of every runs table, or a value is not a number.
    """
    for name, value in values.items():
        if name in (*COLUMNS, *THROUGHPUT_COLUMNS):
            raise InputError(
                f"{part.slot}: {type(part).__name__}: {name} is a column of every runs table; "
                "choose another name"
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{part.slot}: {type(part).__name__}: {name} is {value!r}, not a number")
        yield name, float(value)


def _blocks(tokens: NDArray[np.integer], context: int) -> Tensor:
    """Return blocks spread evenly over ``tokens``, ``(blocks, context + 1)``."""
    count = (len(tokens) - 1) // context
    return take_blocks(tokens, sorted({n * count // READ for n in range(READ)}), context).to(device())


def _risk(reader: LanguageModel, blocks: Tensor, written: int) -> float:
    """Return the cross-entropy of ``reader`` on the last ``written`` tokens of ``blocks``, nats/token."""
    log_p = log_probabilities(logits_of(reader, reader.model(blocks[:, :-1])[:, -written:]))
    return cross_entropy(log_p, blocks[:, -written:]).mean().item()


def _both_read(student: LanguageModel, teacher: LanguageModel, inputs: Tensor) -> Tensor:
    """Return both divergences and the student's entropy at each token: ``(batch * time, 3)``."""
    log_q, log_p = (
        log_probabilities(logits_of(model, model.model(inputs))).flatten(0, 1) for model in (student, teacher)
    )
    entropy = -expectation(log_q, log_q)
    return torch.stack([forward_kl(log_p, log_q), reverse_kl(log_p, log_q), entropy], -1)


@contextmanager
def in_float32(model: LanguageModel) -> Iterator[None]:
    """Let ``model`` multiply in float32 within this."""
    before = model.precision if isinstance(model, Decoder) else None
    if isinstance(model, Decoder):
        model.precision = torch.float32
    yield
    if isinstance(model, Decoder) and before is not None:
        model.precision = before
