"""Peak memory of steps, from shapes and layouts: of one device, or of a machine that runs several at once.

``benchmarks/memory_model.py`` compares it with PyTorch's allocator and with resident memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache

from scaling.costs.flops import ModelShape
from sweeps.dag.kind import StepKind
from sweeps.dag.step import Step
from sweeps.estimate.memory.activations import (
    BYTES_PER_ELEMENT,
    DIVERGENCE_BYTES,
    LABEL_LOSS_BYTES,
    MAX_FULL_LOGITS,
    attention_scores,
    layer_temporaries,
    loss_bytes,
    saved_activations,
)
from sweeps.model.layout import Layout

PROCESS_BYTES, GPU_CONTEXT_BYTES = 300e6, 1e9
"""Resident bytes of a process that has imported what a run needs (257 MB measured, 40 MB more in a worker of
Ray), and on a GPU of its context and libraries."""
KERNELS_BYTES, COMPILER_BYTES = 25e6, 150e6
"""Resident bytes more of a process that computes: code that is first used then, and of ``torch.compile``."""
UNPACKED_ON_CPU = frozenset({"fp8", "mxfp8", "fbgemm_fp8", "mxfp4", "nvfp4"})
"""Quantizations whose matrices are plain ones where there is no GPU for them."""
TRAINING_BYTES_PER_PARAM = 16.0
"""Bytes a parameter: weight, gradient and Adam's two moments in float32."""
STARTING_BYTES_PER_PARAM = 20.0
"""Bytes a parameter while weights are copied side by side for the optimizer."""
CHECKPOINT_BYTES_PER_PARAM = 12.0
"""Bytes a parameter of a checkpoint while it is written: weight and moments, in memory of the host."""
COMPILED_BYTES_PER_PARAM = 8.0
"""Bytes a parameter of gradients that a compiled step returns, by matrix and joined."""
COMPILED_ACTIVATIONS = {"fp32": 0.9, "bf16": 0.7}
"""Share of what plain PyTorch saves for the backward pass that one compiled function holds."""
COMPILED_LOSS_BYTES = {"fp32": 8.0, "bf16": 5.0}
"""Peak bytes a logit of a compiled cross-entropy."""
COMPILED_DIVERGENCE_BYTES = {"fp32": 8.0, "bf16": 2.0}
"""Peak bytes a logit of a compiled divergence."""
HIDDEN_STATES_COPIES = 4.0
"""Copies of a teacher's hidden states: themselves, the target, the prediction, its gradient."""
BLOCKS_AT_ONCE = 16
"""Blocks that are evaluated, or that a teacher writes down, at a time, at most."""
ACTIVATIONS_HEAP = {"fp32": 0.3, "bf16": 0.8}
"""Memory that lies between activations, as a share of theirs: freed memory is kept, and glibc's aligned
allocations seldom fit into a hole of their own size; in bf16 oneDNN's reordered matrices are part of it. Set,
as the next, by the 20 configurations with even numbers of ``benchmarks/memory_model.py``."""
TRANSIENT_HEAP = 0.6
"""Memory likewise between the tensors of a loss, or of a pass without gradients."""
GATHERED_BLOCKS = 2.0
"""Blocks of a sharded model that are whole at a time: the one at work and the next."""
LEAN = Layout()


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryParts:
    """Bytes of one device at the peak of a step, by what they are for."""

    process: float
    """The process itself."""
    states: float = 0.0
    """Weights, gradients and moments, of heads too, or this device's shards of them."""
    gathered: float = 0.0
    """Blocks of sharded models that are whole for a moment, and their gradients."""
    activations: float = 0.0
    """Saved for the backward pass, with what a layer needs beside it."""
    loss: float = 0.0
    """Logits, and what the loss makes of them."""
    targets: float = 0.0
    """Inputs of targets and auxiliary losses, read of a batch."""
    teachers: float = 0.0
    """Weights of frozen models."""
    inference: float = 0.0
    """More that a pass of a frozen model, or an evaluation, takes at its peak than training does."""
    checkpoint: float = 0.0
    """State that is written, where host and device are one."""
    read_ahead: float = 0.0
    """Batches read ahead from caches, where host and device are one; no tensors yet."""
    heap: float = 0.0
    """Memory between tensors, and of kernels and compiler, on CPU."""

    @property
    def tensors(self) -> float:
        """Bytes of tensors at once, without a checkpoint's."""
        return self.resident - self.read_ahead - self.heap

    @property
    def resident(self) -> float:
        """Resident bytes that the step adds to a process on CPU, without a checkpoint's."""
        return self.total - self.process - self.checkpoint

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(getattr(self, each.name) for each in fields(self))


def step_memory(step: Step, *, gpu: bool = False, processes: int = 1, layout: Layout = LEAN) -> float:
    """Return peak bytes of a step on each of its ``processes``; see :func:`memory_parts`."""
    return memory_parts(step, gpu=gpu, processes=processes, layout=layout).total


def memory_parts(step: Step, *, gpu: bool = False, processes: int = 1, layout: Layout = LEAN) -> MemoryParts:
    """Return peak bytes of a step on each of its ``processes``, which split its batch.

    Args:
        step: The step.
        gpu: True for a GPU, whose fused attention saves no scores; else for the memory of a machine.
        processes: Processes of the step, each with a device.
        layout: What is sharded, how large a micro-batch is, and whether blocks are recomputed.
    """
    process = GPU_CONTEXT_BYTES if gpu else PROCESS_BYTES
    if step.served:
        return MemoryParts(process=process)
    if step.foreign:
        own = _inference(step.shape, step.precision, _tokens_at_once(step.shape), gpu=gpu)
        shards = processes if layout.sharded else 1
        found = MemoryParts(
            process=process,
            gathered=_gathered(step.shape, step.precision) if shards > 1 else 0.0,
            teachers=_frozen_weights(step, gpu=gpu) / shards,
            inference=own,
        )
    elif not step.kind.trains:
        found = _writing_parts(step, process, gpu=gpu, shards=processes if layout.sharded else 1)
    else:
        found = _training_parts(step, process, gpu=gpu, processes=processes, layout=layout)
    return found if gpu else replace(found, heap=_heap(step, found))


def _heap(step: Step, parts: MemoryParts) -> float:
    """Return resident bytes on CPU that are no tensors, nor those of the process before."""
    between = ACTIVATIONS_HEAP["fp32" if step.training.precision == "fp32" else "bf16"] * parts.activations
    between += TRANSIENT_HEAP * (parts.loss if step.kind.trains else parts.inference)
    return between + KERNELS_BYTES + (COMPILER_BYTES if step.training.compile else 0.0)


def _training_parts(step: Step, process: float, *, gpu: bool, processes: int, layout: Layout) -> MemoryParts:
    shape, precision = step.shape, step.precision
    share = step.training.batch_tokens / processes
    tokens = min(share, layout.micro_batch_tokens or share)
    shards = processes if layout.sharded else 1
    teachers = list(_teachers_that_read(step))
    heads = _head_params(step)
    saved = saved_activations(shape, precision, tokens, gpu=gpu, recompute=layout.recompute)
    loss = loss_bytes(shape, precision, tokens, *_bytes_a_logit(step, gpu=gpu))
    beside = layer_temporaries(shape, tokens, gpu=gpu)
    if _as_one_function(step, gpu=gpu):
        saved, beside = saved * COMPILED_ACTIVATIONS[precision], 0.0
    read = share if step.logits or _writes_along(step) else tokens
    targets = _target_rows(step, read) + _hidden_states(step, tokens)
    training = saved + max(loss, beside) + targets
    params = shape.total_params + heads
    states = TRAINING_BYTES_PER_PARAM * params / shards + _states_of_losses(step)
    if _as_one_function(step, gpu=gpu):
        states += COMPILED_BYTES_PER_PARAM * params
    starting = STARTING_BYTES_PER_PARAM * params if shards == 1 else 0.0
    inference = max(
        *(_inference(each.shape, each.precision, read, gpu=gpu) + targets for each in teachers),
        _inference(shape, "fp32", _tokens_at_once(shape), gpu=gpu),
        starting - states,
        0.0,
    )
    models = [(shape, precision), *((each.shape, each.precision) for each in teachers)]
    return MemoryParts(
        process=process,
        states=states,
        gathered=max(_gathered(*each) for each in models) if shards > 1 else 0.0,
        activations=saved + max(0.0, beside - loss),
        loss=loss,
        targets=targets,
        teachers=sum(_frozen_weights(each, gpu=gpu) for each in teachers) / shards,
        inference=max(0.0, inference - training),
        checkpoint=0.0 if gpu else CHECKPOINT_BYTES_PER_PARAM * params / shards,
        read_ahead=0.0 if gpu else _read_ahead(step, share),
    )


def _writing_parts(step: Step, process: float, *, gpu: bool, shards: int) -> MemoryParts:
    """Return bytes of a step in which teachers write down what they say of texts, or write texts."""
    teachers = list(_teachers_that_read(step))
    logits = step.kind is StepKind.CACHE_LOGITS
    tokens = _tokens_at_once(step.shape) if logits else BLOCKS_AT_ONCE * step.shape.context
    caches = 0.0
    if step.kind is StepKind.GENERATE_TEXT and step.teacher:
        teachers = [step.teacher]
        caches = 8.0 * tokens * step.teacher.shape.layers * step.teacher.shape.width
    gathered = max((_gathered(each.shape, each.precision) for each in teachers), default=0.0)
    return MemoryParts(
        process=process,
        gathered=gathered if shards > 1 else 0.0,
        teachers=sum(_frozen_weights(each, gpu=gpu) for each in teachers) / shards,
        inference=caches
        + max((_inference(each.shape, each.precision, tokens, gpu=gpu) for each in teachers), default=0.0),
    )


def _tokens_at_once(shape: ModelShape) -> float:
    """Return the tokens that are evaluated, or of which a teacher writes logits down, at a time."""
    blocks = MAX_FULL_LOGITS // (shape.vocab * shape.context)
    return max(1, min(BLOCKS_AT_ONCE, blocks)) * shape.context


def _teachers_that_read(step: Step) -> Iterator[Step]:
    """Yield the teachers whose passes over batches are part of the step."""
    all_read = step.parts is not None and step.parts.target.reads_other_teachers
    losses = [loss for loss in step.auxiliary_losses if loss.cache is None]
    for number, teacher in enumerate(step.teachers):
        if teacher.served:
            continue
        target = number == 0 or all_read
        own = target and not step.logits and (not step.kind.trains or step.tokens_to_teach)
        if own or any(loss.teacher_layers(teacher.shape, number) for loss in losses):
            yield teacher


def _as_one_function(step: Step, *, gpu: bool) -> bool:
    """Return True if loss and gradient are compiled together, as on a CPU where all logits are held."""
    fit = step.training.batch_tokens * step.shape.vocab <= MAX_FULL_LOGITS
    return bool(step.training.compile) and fit and not gpu


def _bytes_a_logit(step: Step, *, gpu: bool) -> tuple[float, float]:
    """Return peak bytes a logit of the step's loss where all are held, and more of a chunk: its target's."""
    supervised = step.method is None or not step.method.reads_teacher
    if _as_one_function(step, gpu=gpu):
        return (COMPILED_LOSS_BYTES if supervised else COMPILED_DIVERGENCE_BYTES)[step.precision], 0.0
    if supervised:
        return LABEL_LOSS_BYTES[step.precision], 0.0
    return DIVERGENCE_BYTES[step.precision], 4.0


def _writes_along(step: Step) -> bool:
    """Return True if text is written during the run: a batch at a time, which its teacher then reads."""
    return step.parts is not None and step.parts.source.writes_along


def _target_rows(step: Step, tokens: float) -> float:
    """Return bytes of what the target read of so many tokens and, until replaced, of those before."""
    if step.teacher is None or step.method is None or not step.method.reads_teacher:
        return 0.0
    size, shape = BYTES_PER_ELEMENT[step.teacher.precision], step.teacher.shape
    if step.logits and step.method.logits != "cached":
        kept = step.method.draws if step.method.logits == "sampled" else step.method.top + 1
        return 2 * 8.0 * tokens * kept
    if step.logits or step.training.batch_tokens * shape.vocab <= MAX_FULL_LOGITS:
        return 2 * 4.0 * tokens * shape.vocab
    return 2 * size * tokens * shape.width


def _head_params(step: Step) -> float:
    """Return parameters of heads that are trained beside the model."""
    shapes = [teacher.shape for teacher in step.teachers]
    return sum((loss.head_params(step.shape, shapes) for loss in step.auxiliary_losses), 0.0)


def _states_of_losses(step: Step) -> float:
    """Return bytes that auxiliary losses remember."""
    shapes = [teacher.shape for teacher in step.teachers]
    return sum((loss.state_bytes(shapes) for loss in step.auxiliary_losses), 0.0)


def _read_ahead(step: Step, tokens: float) -> float:
    """Return bytes of batches that are read ahead from caches."""
    if not (step.logits or step.texts or step.features):
        return 0.0
    from sweeps.distill.caches.read_ahead_memory import read_ahead_bytes

    return read_ahead_bytes(step, tokens)


def _hidden_states(step: Step, tokens: float) -> float:
    """Return bytes of the hidden states that auxiliary losses read of a batch."""
    shapes, needed = [teacher.shape for teacher in step.teachers], 0.0
    for loss in step.auxiliary_losses:
        read = sum(each.width * len(loss.teacher_layers(each, n)) for n, each in enumerate(shapes))
        needed += 4.0 * HIDDEN_STATES_COPIES * tokens * read
    return needed


def _frozen_weights(of: Step, *, gpu: bool) -> float:
    """Return bytes of a frozen model's weights: our own stay float32, others are in their precision."""
    if quantized := _quantized_bytes(of, gpu):
        return quantized
    size = BYTES_PER_ELEMENT[of.precision] if of.foreign else BYTES_PER_ELEMENT["fp32"]
    rounded = of.precision != "fp32" and not of.foreign and of.training.compile
    return (size + (BYTES_PER_ELEMENT[of.precision] if rounded else 0.0)) * of.shape.total_params


def _inference(shape: ModelShape, precision: str, tokens: float, *, gpu: bool) -> float:
    """Return bytes of a forward pass: one layer's activations, then logits or features."""
    size = BYTES_PER_ELEMENT[precision]
    layer = 4.0 * 2 * shape.width + size * (4 * shape.ffn + 2 * shape.width)
    scores = 4.0 * 2 * attention_scores(shape, gpu) + size * 6 * shape.heads * shape.head_dim
    logits = 8.0 * min(tokens * shape.vocab, MAX_FULL_LOGITS)
    return max(tokens * max(layer, scores), logits + size * tokens * shape.width)


def _gathered(shape: ModelShape, precision: str) -> float:
    """Return bytes of what is whole of a sharded model: embedding and blocks, and a block's gradients."""
    size = BYTES_PER_ELEMENT[precision]
    block, embedding = shape.params / shape.layers, float(shape.embedding_params)
    return size * (GATHERED_BLOCKS * block + embedding) + (size + 4.0) * max(block, embedding)


def _quantized_bytes(of: Step, gpu: bool) -> float | None:
    """Return bytes in memory of the weights of a quantized checkpoint, its files' unless it is unpacked."""
    foreign = of.foreign
    if foreign is None or (foreign.quantization in UNPACKED_ON_CPU and not gpu):
        return None
    return foreign.file_bytes


def concurrent_memory(
    steps: Iterable[Step], needs: Iterable[float], shares: Iterable[float], room: float
) -> float:
    """Return bytes of the largest steps whose shares have room, none of which depends on another.

    One large step that all others wait for may need less than those do together, so the largest are sought
    among all steps, among those that wait for another, among those that wait for these, and so on.
    """
    sized = sorted(zip(needs, steps, shares, strict=True), key=lambda each: each[0], reverse=True)
    before = cache(_ancestors)
    behind: dict[str, int] = {}
    for _, step, _ in sized:
        _chain(step, behind)
    largest = 0.0
    for first in range(max((behind[step.id] for _, step, _ in sized), default=0) + 1):
        chosen: list[Step] = []
        total, left = 0.0, room
        for needed, step, share in sized:
            if left <= 0:
                break
            if share > left or behind[step.id] < first:
                continue
            if any(step.id in before(other) or other.id in before(step) for other in chosen):
                continue
            chosen.append(step)
            total, left = total + needed, left - share
        largest = max(largest, total)
    return largest


def _chain(step: Step, known: dict[str, int]) -> int:
    """Return the length of the longest chain of steps that ``step`` waits for; ``known`` keeps it by id."""
    if step.id not in known:
        known[step.id] = max((1 + _chain(need, known) for need in step.needs), default=0)
    return known[step.id]


def _ancestors(step: Step) -> frozenset[str]:
    """Return the ids of all steps that ``step`` depends on."""
    found: set[str] = set()
    ahead = list(step.needs)
    while ahead:
        if (need := ahead.pop()).id not in found:
            found.add(need.id)
            ahead += need.needs
    return frozenset(found)
