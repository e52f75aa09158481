"""Choice of a step's layout on its devices, by the memory model, with the reason in words.

In this order, the first that fits: the lean path, smaller micro-batches, blocks computed again in the
backward pass, and all of these with weights, gradients and moments sharded over the devices.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from scaling.errors import InputError
from sweeps.dag.kind import StepKind
from sweeps.dag.step import Step
from sweeps.estimate.memory.machine_memory import machine_memory
from sweeps.estimate.memory.memory import step_memory
from sweeps.model.layout import Layout
from sweeps.spec.method.interfaces import Target
from sweeps.spec.spec import Training

USABLE = 0.9
"""Share of a device's memory that is planned with; allocators lose the rest between tensors."""
EFFICIENT_TOKENS = 4096
"""Tokens of a micro-batch below which a GPU is not busy; smaller ones are the last resort."""
MOST_DEVICES, NODE = 4096, 8
"""Devices up to which a number that would do is looked for, and GPUs of one machine, at most."""
GB = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceKind:
    """Devices of one kind; machines like this one if nothing is given."""

    gpu: bool = False
    memory: float | None = field(default_factory=machine_memory)
    """Bytes of one; None if unknown."""
    name: str = "machine"
    share: float = 1.0
    """Share of one that each process of a step has."""

    def __str__(self) -> str:
        assert self.memory is not None
        part = f"{self.share:g} of a {self.name}" if self.share < 1 else f"a {self.name}"
        return f"{part} has {self.memory * self.share / GB:.3g} GB"


def layout_for(step: Step, devices: DeviceKind, processes: int = 1) -> Layout:
    """Return the layout of a step in ``processes`` processes, each with a device or a share of one.

    What the spec's ``training`` fixes (``micro_batch_tokens``, ``recompute``, ``shard``) stays as it is.

    Raises:
        InputError: If nothing fits, with the devices that would do, or a batch cannot be split evenly.
    """
    _check_split(step, processes)
    first: float | None = None
    for layout in _candidates(step, processes, gpu=devices.gpu):
        if devices.memory is None:
            return replace(layout, reason="the memory of the device is not known")
        needed = step_memory(step, gpu=devices.gpu, processes=processes, layout=layout)
        if needed <= USABLE * devices.memory * devices.share:
            return replace(layout, reason=_reason(needed, devices, first, step))
        first = needed if first is None else first
    raise InputError(misfit(step, devices, processes))


def device_here(share: float = 1.0) -> DeviceKind:
    """Return the device of this process: ``share`` of its GPU, if there is one, else this machine."""
    import torch

    if not torch.cuda.is_available():
        return DeviceKind()
    memory = float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return DeviceKind(gpu=True, memory=memory, name=torch.cuda.get_device_name(), share=share)


def layout_of_gang(step: Step, devices: Sequence[DeviceKind]) -> Layout:
    """Return the layout of a step in processes that have these ``devices``, by rank.

    They may be of several kinds, by name: the layout fits the one with the least memory.

    Raises:
        InputError: If nothing fits, or some processes have a GPU and others have none.
    """
    kinds = Counter(each.name for each in devices)
    counts = ", ".join(f"{count} x {name}" for name, count in kinds.items())
    without = [str(rank) for rank, each in enumerate(devices) if not each.gpu]
    if 0 < len(without) < len(devices):
        raise InputError(
            f"{step.label}: PyTorch can use no GPU in process {', '.join(without)} of {len(devices)}, and "
            f"one in the others ({counts}); all must have one, or none. `distlaw sweep doctor` on each node "
            "says what is wrong"
        )
    least = min(devices, key=lambda each: math.inf if each.memory is None else each.memory * each.share)
    layout = layout_for(step, least, len(devices))
    if len(kinds) == 1:
        return layout
    mixed = f"of several kinds of GPU ({counts}) the smallest must hold it, and the slowest sets the pace"
    return replace(layout, reason=f"{layout.reason}; {mixed}")


def describe(layout: Layout, processes: int) -> str:
    """Return a layout in words: what is sharded, micro-batches, what is computed twice."""
    whole = "whole on one device" if processes == 1 else f"whole on each of {processes} devices"
    parts = [f"sharded over {processes} devices" if layout.sharded else whole]
    if layout.micro_batch_tokens is not None:
        parts.append(f"micro-batches of {layout.micro_batch_tokens:,.0f} tokens")
    if layout.recompute:
        parts.append("blocks recomputed")
    return ", ".join(parts)


def least_memory(step: Step, processes: int, *, gpu: bool) -> float:
    """Return the bytes of each device with the most frugal layout."""
    every = (
        step_memory(step, gpu=gpu, processes=processes, layout=each)
        for each in _candidates(step, processes, gpu=gpu)
    )
    return min(every)


def efficient_memory(step: Step, enough: float) -> float:
    """Return the bytes of one GPU with the most frugal layout that is as fast as any.

    It computes no block twice, unless the spec asks for it, and its micro-batches keep a GPU busy. The first
    that needs no more than ``enough`` bytes is taken.
    """
    simplest, *others = _candidates(step, 1, gpu=True)
    least = step_memory(step, gpu=True, layout=simplest)
    for each in others:
        fast = each.recompute == simplest.recompute and (each.micro_batch_tokens or 0) >= EFFICIENT_TOKENS
        if fast and least > enough:
            least = min(least, step_memory(step, gpu=True, layout=each))
    return least


def misfit(step: Step, devices: DeviceKind, processes: int) -> str:
    """Return why no layout of a step fits, and the devices that would do."""
    assert devices.memory is not None
    least = least_memory(step, processes, gpu=devices.gpu)
    on = f" on each of {processes}" if processes > 1 else ""
    text = f"{step.label}: needs at least {least / GB:.3g} GB{on}, and {devices}"
    larger = f"one with {least / USABLE / GB:.3g} GB{on}"
    count = devices_that_fit(step, devices.memory, gpu=devices.gpu)
    if count is None:
        return f"{text}; {_uneven(step)}use {larger}{_offline(step)}"
    rule = f"{{from_params: {step.shape.params}, {_resources(count, gpu=devices.gpu)}}}"
    return f"{text}; {count} would do (resources: [{rule}]), or {larger}{_offline(step)}"


def _offline(step: Step) -> str:
    """Return how a teacher that reads beside its student could have devices of its own, if a step has one."""
    online = step.teacher and step.method and step.method.reads_teacher and not step.logits
    if not (online and step.method and step.method.reads_data):
        return ""
    return "; or let its teacher write its logits down first, on its own devices (methods: [{logits: top-k}])"


def devices_that_fit(step: Step, memory: float, *, gpu: bool) -> int | None:
    """Return the least power of two of devices of ``memory`` bytes that would do; None if none would."""
    blocks = _blocks(step) if step.kind.trains else 1
    for count in (2**power for power in range(MOST_DEVICES.bit_length())):
        if blocks % count == 0 and least_memory(step, count, gpu=gpu) <= USABLE * memory:
            return count
    return None


def _resources(count: int, *, gpu: bool) -> str:
    """Return the fields of resources that give a step so many devices."""
    if not gpu:
        return f"nodes: {count}"
    return f"gpus: {min(count, NODE)}" + (f", nodes: {count // NODE}" if count > NODE else "")


def _check_split(step: Step, processes: int) -> None:
    blocks, context = _blocks(step), step.shape.context
    if not step.kind.trains or step.trainer or blocks % processes == 0:
        return
    fewer = max(count for count in range(1, processes) if blocks % count == 0)
    tokens = -(-blocks // processes) * processes * context
    raise InputError(
        f"{step.label}: a batch of {blocks} blocks cannot be split evenly over {processes} processes; give "
        f"it {fewer} (resources), or set training.batch_tokens: {tokens}"
    )


def _uneven(step: Step) -> str:
    blocks = _blocks(step)
    if blocks & (blocks - 1) == 0:
        return ""
    tokens = step.shape.context * 2 ** max(1, round(blocks).bit_length() - 1)
    return (
        f"more of them cannot share a batch of {blocks:,} blocks equally, as they could one of "
        f"batch_tokens: {tokens}; "
    )


def _blocks(step: Step) -> int:
    return max(1, round(step.training.batch_tokens / step.shape.context))


def _candidates(step: Step, processes: int, *, gpu: bool) -> Iterator[Layout]:
    """Yield layouts in the order of preference."""
    if step.trainer:
        yield Layout()
        return
    if not step.kind.trains:
        shards = _switch(step.training.shard) if processes > 1 and _reads_in_parts(step) else (False,)
        yield from (Layout(sharded=sharded) for sharded in shards)
        return
    training, context = step.training, step.shape.context
    share = _blocks(step) / processes * context
    floor = EFFICIENT_TOKENS if gpu else context
    sizes = list(_micro_batches(training, share, context))
    large = [size for size in sizes if size is None or size >= floor] or sizes[:1]
    for group in (large, [size for size in sizes if size not in large]):
        for sharded in _switch(training.shard) if processes > 1 else (False,):
            for recompute in _switch(training.recompute):
                yield from (
                    Layout(sharded=sharded, micro_batch_tokens=size, recompute=recompute) for size in group
                )


def _reads_in_parts(step: Step) -> bool:
    """Return True if a step that trains nothing can shard the models that it asks over its processes.

    They must ask as often as each other: texts, hidden states and what targets write themselves do not.
    """
    if step.kind is StepKind.CACHE_LOGITS and step.parts:
        own = type(step.parts.target).writer is not Target.writer
        return not own and not any(teacher.served for teacher in step.teachers)
    return bool(step.foreign)


def _micro_batches(training: Training, share: float, context: int) -> Iterator[float | None]:
    """Yield sizes of micro-batches: the whole share of a batch, then halves of halves down to one block."""
    given = training.micro_batch_tokens
    if not isinstance(given, str):
        yield None if given >= share else given
        return
    yield None
    blocks = share / context
    while blocks > 1:
        blocks = -(-blocks // 2)
        yield blocks * context


def _switch(given: str | bool) -> tuple[bool, ...]:
    return (False, True) if isinstance(given, str) else (given,)


def _reason(needed: float, devices: DeviceKind, first: float | None, step: Step) -> str:
    """Return why a layout was chosen."""
    if step.trainer:
        return "its command lays it out"
    assert devices.memory is not None
    fits = f"{needed / GB:.3g} of {devices.memory * devices.share / GB:.3g} GB"
    return fits if first is None else f"{fits}, where the simplest layout would take {first / GB:.3g} GB"
