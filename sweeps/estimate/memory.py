"""Peak memory of steps, from their shapes: of one device, or of a machine that runs several side by side."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from scaling.costs.flops import ModelShape
from sweeps.dag.step import Step

PROCESS_BYTES = 400e6
"""A process that has imported torch."""
BYTES = {"fp32": 4.0, "bf16": 2.0}
STATES = 16.0
"""Bytes a parameter: weight, gradient and Adam's two moments in float32."""
LOGITS_HELD, LOGITS_AT_ONCE = 2.0**23, 2.0**24
"""Elements of logits up to which all are held, and of a block of them beyond: those of the chunked loss."""
LOGITS_COPIES = 5.0
"""Of logits: themselves, log-probabilities, the teacher's, what is kept for the backward pass, gradient."""


def memory(step: Step, *, gpu: bool = False, processes: int = 1) -> float:
    """Peak bytes of a step on each of its ``processes``, which share its batch but not its weights.

    On a ``gpu`` attention is fused and keeps no scores; on CPU it keeps their softmax.
    """
    tokens = step.training.batch_tokens / processes
    needed = PROCESS_BYTES
    if step.foreign:
        return needed + _reading(step, min(tokens, 16.0 * step.shape.context), gpu)
    if step.kind.trains:
        needed += (
            STATES * step.shape.total_params
            + kept_for_backward(step, tokens, gpu=gpu)
            + _at_work(step, tokens, gpu)
            + _logits(step, tokens)
        )
    if step.teacher and not step.logits and (not step.kind.trains or step.tokens_to_teach):
        needed += _reading(step.teacher, tokens, gpu)
    return needed


def kept_for_backward(step: Step, tokens: float, *, gpu: bool) -> float:
    """Bytes that all layers keep: what each norm and product read, and matrices side by side or rounded."""
    shape, size = step.shape, BYTES[step.precision]
    inner, scores = shape.heads * shape.head_dim, _scores(shape, gpu)
    rounded = size < BYTES["fp32"]
    full = 2 * shape.width + 4 * inner  # of the stream, and of queries and keys before and after their norms
    read = 2 * shape.width + 6 * inner + 4 * shape.ffn + scores
    each = 4.0 * full + size * read + (4.0 * scores if rounded else 0.0)
    joined = shape.layers * shape.width * (3 * inner + 2 * shape.ffn)
    return tokens * shape.layers * each + size * (shape.matrix_params if rounded else joined)


def _at_work(step: Step, tokens: float, gpu: bool) -> float:
    """Bytes of what one layer holds for a moment."""
    return 3 * 4.0 * tokens * max(_scores(step.shape, gpu), step.shape.ffn)


def _scores(shape: ModelShape, gpu: bool) -> float:
    """Attention scores of a token that are held."""
    return 0.0 if gpu else float(shape.heads * shape.context)


def _logits(step: Step, tokens: float) -> float:
    """Bytes of the loss: all logits where they are few, else blocks of them and gradients in float32."""
    vocab, width = step.shape.vocab, step.shape.width
    if tokens * vocab <= LOGITS_HELD:
        return 4.0 * LOGITS_COPIES * tokens * vocab
    return 4.0 * (LOGITS_COPIES * LOGITS_AT_ONCE + (tokens + vocab) * width)


def _reading(of: Step, tokens: float, gpu: bool) -> float:
    """Bytes of a model that only reads: its weights, and one layer's activations at a time."""
    shape, size = of.shape, BYTES[of.precision]
    weights = (size if of.foreign else 4.0) * shape.total_params
    scores = 3.0 * _scores(shape, gpu)
    held = min(tokens * shape.vocab, LOGITS_HELD) + tokens * shape.width
    return weights + 4.0 * (tokens * (6 * shape.width + 3 * shape.ffn + scores) + held)


def together(steps: Iterable[Step], needs: Iterable[float], slots: int) -> float:
    """Bytes of the largest steps, at most ``slots``, none of which waits for another."""
    sized = sorted(zip(needs, steps, strict=True), key=lambda pair: pair[0], reverse=True)
    before = cache(_before)
    chosen: list[Step] = []
    total = 0.0
    for needed, step in sized:
        if len(chosen) == slots:
            break
        if all(step.id not in before(other) and other.id not in before(step) for other in chosen):
            chosen.append(step)
            total += needed
    return total


def _before(step: Step) -> frozenset[str]:
    """The ids of all that must be done before ``step``."""
    found: set[str] = set()
    ahead = list(step.needs)
    while ahead:
        if (need := ahead.pop()).id not in found:
            found.add(need.id)
            ahead += need.needs
    return frozenset(found)
