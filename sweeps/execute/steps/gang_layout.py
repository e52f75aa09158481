"""Layout of a step in the processes that are to run it, on which all of them agree."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweeps.dag.step import Step
from sweeps.estimate.memory.layout import device_here, layout_of_gang
from sweeps.model.layout import Layout
from sweeps.store.leases import Attempt, Lease, attempts
from sweeps.store.outcomes import Ending

if TYPE_CHECKING:
    from sweeps.model.distributed import World


def agreed_layout(step: Step, world: World, lease: Lease | None = None, gpu_share: float = 1.0) -> Layout:
    """Return the layout of ``step``, the same in all processes of ``world``, which all call it.

    For each attempt whose memory ran out in as many processes, micro-batches are half as large.

    Args:
        step: the step.
        world: its processes.
        lease: the leading process's lease.
        gpu_share: share of a GPU that each process has.

    Raises:
        InputError: in all processes, if it fits nowhere, or some have a GPU and others have none.
    """
    layout = layout_of_gang(step, world.gathered(device_here(gpu_share)))
    if world.size == 1 or not step.kind.trains:
        return layout
    failures = [each for each in _attempts_like(lease) if each.ending is Ending.MEMORY] if lease else []
    (halvings,) = world.most(len(failures))
    blocks = round(step.training.batch_tokens / step.shape.context) // world.size
    for _ in range(halvings):
        layout = layout.halved(blocks, step.shape.context)
    if not halvings:
        return layout
    times = "once" if halvings == 1 else f"{halvings} times"
    return replace(
        layout, reason=f"{layout.reason}; micro-batches are halved, as memory ran out {times} before"
    )


def _attempts_like(lease: Lease) -> list[Attempt]:
    """Return the attempts at the step of ``lease`` on as many devices."""
    alike = ("nodes", "gpus", "cpus")
    return [
        each
        for each in attempts(lease.store, lease.step)
        if all(each.told.get(name) == lease.about.get(name) for name in alike)
    ]
