"""Placement of steps before there is a cluster: resources, layout and memory of each on its devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scaling.errors import InputError
from scaling.units import format_number
from sweeps.dag.expand import Step
from sweeps.estimate.memory.layout import (
    NODE,
    USABLE,
    DeviceKind,
    describe,
    devices_that_fit,
    efficient_memory,
    layout_for,
    least_memory,
)
from sweeps.estimate.memory.memory import step_memory
from sweeps.model.layout import Layout
from sweeps.spec.resources import GPU_SHARE, Resources, resources_of
from sweeps.spec.spec import Sweep

SHARES = (0.5, 1.0)
"""Shares of a GPU that a step has whose memory needs more than the usual one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """A step on its devices."""

    step: Step
    processes: int
    """Processes on all nodes, each with a device or a share of one."""
    layout: Layout | None
    """None if no layout fits."""
    memory_bytes: float
    """Peak bytes on each device."""
    problem: str | None = None
    """Reason why nothing fits, and what would."""

    def as_json(self) -> dict[str, object]:
        """Return the placement as plain values, sizes in bytes and tokens."""
        layout = self.layout
        return {
            "processes": self.processes,
            "memory_bytes_per_device": self.memory_bytes,
            "sharded": layout.sharded if layout else None,
            "micro_batch_tokens": layout.micro_batch_tokens if layout else None,
            "recompute": layout.recompute if layout else None,
            "layout": describe(layout, self.processes) if layout else "fits nowhere",
            "reason": self.problem or (layout.reason if layout else ""),
        }


def resources_on(
    gpu: DeviceKind | None,
    steps: Sequence[Step],
    rules: Sequence[Resources],
    usual: Resources,
    per_node: int = NODE,
) -> Resources:
    """Return the resources of steps that are trained together: those of a rule, or what their memory needs.

    Without a rule they have the usual share of a GPU, if they fit there without computing anything twice,
    else a half, else a whole one; a step that no layout fits on one GPU has as many as would do.

    Args:
        gpu: The smallest GPU that may be used; None if it is unknown, for the usual resources.
        steps: Members of a cohort.
        rules: The spec's rules.
        usual: Resources of most steps.
        per_node: Largest number of GPUs of a node.
    """
    found = resources_of(steps, rules, usual)
    if found is not usual or not usual.gpus or gpu is None or gpu.memory is None:
        return found
    if any(step.trainer for step in steps):
        return found  # nobody knows what a command needs
    enough = USABLE * gpu.memory * usual.gpus / len(steps)
    needed = sum(efficient_memory(step, enough) for step in steps)
    for share in (usual.gpus, *SHARES):
        if share >= usual.gpus and needed <= USABLE * gpu.memory * share:
            return usual.model_copy(update={"gpus": share})
    count = max(devices_that_fit(step, gpu.memory, gpu=True) or 1 for step in steps)
    on_each = min(count, 2 ** (per_node.bit_length() - 1))
    return usual.model_copy(update={"gpus": on_each, "nodes": count // on_each})


def planned_resources(step: Step, sweep: Sweep | None) -> Resources:
    """Return the resources of a step, as far as the spec determines them before there is a cluster."""
    gpu = sweep.hardware.gpu if sweep else None
    kind = DeviceKind(gpu=True, memory=gpu.memory_bytes, name=gpu.name) if gpu else None
    usual = Resources(gpus=GPU_SHARE if gpu else 0)
    return resources_on(kind, [step], sweep.resources if sweep else [], usual)


def place(step: Step, sweep: Sweep | None) -> Placement:
    """Return the placement of a step: on the GPUs that the spec names, else on machines like this one."""
    resources = planned_resources(step, sweep)
    processes, devices = resources.processes * resources.nodes, _devices(resources, sweep)
    layout, problem = None, None
    try:
        layout = layout_for(step, devices, processes)
        needed = step_memory(step, gpu=devices.gpu, processes=processes, layout=layout)
    except InputError as error:
        needed, problem = least_memory(step, processes, gpu=devices.gpu), str(error)
    return Placement(step=step, processes=processes, layout=layout, memory_bytes=needed, problem=problem)


def recomputed_flops(step: Step, sweep: Sweep | None) -> float:
    """Return the FLOPs that a step's layout computes twice: a forward pass of its blocks for each token.

    They take time and count neither as FLOPs of the run nor in its utilization (MFU).
    """
    if not step.kind.trains or step.trainer or step.training.recompute is False:
        return 0.0
    layout = place(step, sweep).layout
    if layout is None or not layout.recompute:
        return 0.0
    outside = 2.0 * step.shape.width * (step.shape.vocab + 1)  # logits and the embedding
    return (step.shape.forward_flops - outside) * step.tokens_to_train * step.passes.trained


def memory_on(step: Step, sweep: Sweep | None) -> float:
    """Peak bytes of a step on each device that it uses."""
    return place(step, sweep).memory_bytes


def misfits(placements: Iterable[Placement]) -> list[Placement]:
    """Return the placements that no layout fits, the largest first; a command lays its step out itself."""
    found = [each for each in placements if each.problem and not each.step.trainer]
    return sorted(found, key=lambda each: each.memory_bytes, reverse=True)


def layout_lines(placements: Iterable[Placement]) -> Iterator[str]:
    """Yield how steps are laid out on their devices: a line for each way, with the largest step's reason."""
    ways: dict[str, list[Placement]] = {}
    for each in placements:
        if each.layout:
            ways.setdefault(describe(each.layout, each.processes), []).append(each)
    for words, steps in sorted(ways.items(), key=lambda way: len(way[1]), reverse=True):
        largest = max(steps, key=lambda each: each.memory_bytes)
        assert largest.layout is not None
        count = f"{len(steps)} step{'s' * (len(steps) > 1)}"
        size = format_number(largest.step.shape.params)
        yield f"{count} {words} (the largest, {size}: {largest.layout.reason})"


def _devices(resources: Resources, sweep: Sweep | None) -> DeviceKind:
    """Return the devices of a step: the GPU that the spec names, one of unknown memory, or this machine."""
    if not resources.gpus:
        return DeviceKind()
    gpu = sweep.hardware.gpu if sweep else None
    name, memory = (gpu.name, gpu.memory_bytes) if gpu else ("GPU", None)
    return DeviceKind(gpu=True, memory=memory, name=name, share=min(1.0, resources.gpus))
