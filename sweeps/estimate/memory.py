"""Peak memory of steps, from their shapes: of one device, or of a machine that runs several at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from scaling.costs.flops import ModelShape
from sweeps.dag.step import Step

PROCESS_BYTES = 400e6
"""Bytes of a process that has imported torch."""
BYTES_PER_ELEMENT = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
UNPACKED_ON_CPU = frozenset({"fp8", "mxfp8", "fbgemm_fp8", "mxfp4", "nvfp4"})
"""Quantizations whose matrices are plain ones where there is no GPU for them."""
TRAINING_BYTES_PER_PARAM = 16.0
"""Bytes a parameter: weight, gradient and Adam's two moments in float32."""
MAX_FULL_LOGITS, LOGITS_PER_CHUNK = 2.0**23, 2.0**24
"""Elements of logits that are held in full, and of one chunk beyond that, as in the chunked loss."""
LOGITS_COPIES = 5.0
"""Copies of logits: themselves, log-probabilities, the teacher's, saved activations, gradient."""

HIDDEN_STATES_COPIES = 4.0
"""Copies of a teacher's hidden states: themselves, the target, the prediction, its gradient."""


def step_memory(step: Step, *, gpu: bool = False, processes: int = 1) -> float:
    """Return peak bytes of a step on each of its ``processes``, which split its batch but not its weights.

    On a ``gpu`` attention is fused and saves no scores; on CPU their softmax is saved.
    """
    tokens = step.training.batch_tokens / processes
    needed = PROCESS_BYTES
    if step.foreign:
        return needed + _inference_memory(step, min(tokens, 16.0 * step.shape.context), gpu)
    if step.kind.trains:
        needed += (
            TRAINING_BYTES_PER_PARAM * step.shape.total_params
            + saved_activations(step, tokens, gpu=gpu)
            + _temporary_activations(step, tokens, gpu)
            + _loss_memory(step, tokens)
            + _auxiliary_memory(step, tokens)
        )
    return needed + sum(_inference_memory(teacher, tokens, gpu) for teacher in _teachers_that_read(step))


def _teachers_that_read(step: Step) -> Iterator[Step]:
    """Yield the teachers whose passes over batches are part of the step."""
    all_read = step.parts is not None and step.parts.target.reads_other_teachers
    losses = [loss for loss in step.auxiliary_losses if loss.cache is None]
    for number, teacher in enumerate(step.teachers):
        target = number == 0 or all_read
        own = target and not step.logits and (not step.kind.trains or step.tokens_to_teach)
        if own or any(loss.teacher_layers(teacher.shape, number) for loss in losses):
            yield teacher


def _auxiliary_memory(step: Step, tokens: float) -> float:
    """Return bytes of heads in training, of states, and of the hidden states that losses read of a batch."""
    shapes, needed = [teacher.shape for teacher in step.teachers], 0.0
    for loss in step.auxiliary_losses:
        read = sum(each.width * len(loss.teacher_layers(each, n)) for n, each in enumerate(shapes))
        needed += TRAINING_BYTES_PER_PARAM * loss.head_params(step.shape, shapes) + loss.state_bytes(shapes)
        needed += 4.0 * HIDDEN_STATES_COPIES * tokens * read
    return needed


def saved_activations(step: Step, tokens: float, *, gpu: bool) -> float:
    """Return bytes saved for the backward pass: inputs of norms and products, joined or rounded matrices."""
    shape, size = step.shape, BYTES_PER_ELEMENT[step.precision]
    inner, scores = shape.heads * shape.head_dim, _attention_scores(shape, gpu)
    rounded = size < BYTES_PER_ELEMENT["fp32"]
    full = 2 * shape.width + 4 * inner  # residual stream; queries and keys before and after their norms
    read = 2 * shape.width + 6 * inner + 4 * shape.ffn + scores
    each = 4.0 * full + size * read + (4.0 * scores if rounded else 0.0)
    joined = shape.layers * shape.width * (3 * inner + 2 * shape.ffn)
    return tokens * shape.layers * each + size * (shape.matrix_params if rounded else joined)


def _temporary_activations(step: Step, tokens: float, gpu: bool) -> float:
    """Return temporary bytes of one layer."""
    return 3 * 4.0 * tokens * max(_attention_scores(step.shape, gpu), step.shape.ffn)


def _attention_scores(shape: ModelShape, gpu: bool) -> float:
    """Return the number of attention scores of a token that are held."""
    return 0.0 if gpu else float(shape.heads * shape.context)


def _loss_memory(step: Step, tokens: float) -> float:
    """Return bytes of the loss: all logits if they are few, else chunks and gradients in float32."""
    vocab, width = step.shape.vocab, step.shape.width
    if tokens * vocab <= MAX_FULL_LOGITS:
        return 4.0 * LOGITS_COPIES * tokens * vocab
    return 4.0 * (LOGITS_COPIES * LOGITS_PER_CHUNK + (tokens + vocab) * width)


def _inference_memory(of: Step, tokens: float, gpu: bool) -> float:
    """Return bytes of inference: weights, and activations of one layer."""
    shape, size = of.shape, BYTES_PER_ELEMENT[of.precision]
    weights = _quantized_bytes(of, gpu) or (size if of.foreign else 4.0) * shape.total_params
    scores = 3.0 * _attention_scores(shape, gpu)
    held = min(tokens * shape.vocab, MAX_FULL_LOGITS) + tokens * shape.width
    return weights + 4.0 * (tokens * (6 * shape.width + 3 * shape.ffn + scores) + held)


def _quantized_bytes(of: Step, gpu: bool) -> float | None:
    """Return bytes in memory of the weights of a quantized checkpoint, its files' unless it is unpacked."""
    foreign = of.foreign
    if foreign is None or (foreign.quantization in UNPACKED_ON_CPU and not gpu):
        return None
    return foreign.file_bytes


def concurrent_memory(steps: Iterable[Step], needs: Iterable[float], slots: int) -> float:
    """Return bytes of the largest steps, at most ``slots``, none of which depends on another."""
    sized = sorted(zip(needs, steps, strict=True), key=lambda pair: pair[0], reverse=True)
    before = cache(_ancestors)
    chosen: list[Step] = []
    total = 0.0
    for needed, step in sized:
        if len(chosen) == slots:
            break
        if all(step.id not in before(other) and other.id not in before(step) for other in chosen):
            chosen.append(step)
            total += needed
    return total


def _ancestors(step: Step) -> frozenset[str]:
    """Return the ids of all steps that ``step`` depends on."""
    found: set[str] = set()
    ahead = list(step.needs)
    while ahead:
        if (need := ahead.pop()).id not in found:
            found.add(need.id)
            ahead += need.needs
    return frozenset(found)
