"""Files that a store no longer needs: leftovers of lost attempts, and inputs of finished steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from sweeps.dag.kind import StepKind
from sweeps.distill.caches.shard_cache import Kept
from sweeps.store.store import Store
from sweeps.watch.status import Status, StepStatus

KEPT = {"result.json", "step.json", "failure.json", "attempts"}
"""Files of a step that are always kept."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Directory or file that may be deleted."""

    place: tuple[str, str]
    size: int
    """Size in bytes."""
    why: str


def find_garbage(store: Store, status: Status, *, models: bool = False) -> list[Garbage]:
    """Find files that may be deleted; with ``models``, also weights that no unfinished step needs.

    Deleting them does not change what a sweep does, only its time: a checkpoint or cache that is needed again
    is recomputed, and so is a teacher whose result is deleted.
    """
    readers: dict[str, list[str]] = {step.id: [] for step in status.steps}
    for step in status.steps:
        for need in step.needs:
            readers[need].append(step.state)
    found = []
    for step in status.steps:
        if step.state == "done":
            over = all(state == "done" for state in readers[step.id])
            for name, why in _of_step(store, step, over=over, models=models):
                found.append(Garbage((step.id, name), store.size(step.id, name), why))
    return found


def _of_step(store: Store, step: StepStatus, *, over: bool, models: bool) -> Iterator[tuple[str, str]]:
    result: dict[str, Any] = store.result(step.id) or {}
    for name in store.names(step.id):
        if name in KEPT:
            continue
        if name.startswith("model") and name != result.get("model", "model"):
            yield name, "left by a lost attempt"
        elif name == "checkpoints" and (over or step.kind != StepKind.SHARED_PREFIX):
            yield (
                name,
                "all runs that share this prefix are done"
                if step.kind == StepKind.SHARED_PREFIX
                else "the run is done",
            )
        elif name.startswith("model") and models and over:
            yield name, "the run and all its students are done"
        elif name.startswith("command-"):
            yield name, "logs and files that the command of the run left"
        elif name in get_args(Kept) and over:
            yield name, "all steps that read it are done"
