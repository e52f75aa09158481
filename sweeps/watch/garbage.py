"""What a store no longer needs: leftovers of lost attempts, what steps kept for others that are done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sweeps.dag.kind import StepKind
from sweeps.store.store import Store
from sweeps.watch.status import Status, StepStatus

KEPT = {"result.json", "step.json", "failure.json", "attempts"}
"""What every step keeps: small, and the truth."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """A directory or file that may go."""

    place: tuple[str, str]
    size: int
    """Bytes."""
    why: str


def garbage(store: Store, status: Status, *, models: bool = False) -> list[Garbage]:
    """What may go; with ``models``, also the weights of finished runs that no unfinished step learns from.

    Nothing here changes what a sweep would do, only how long: a checkpoint or cache that is wanted again is
    made again, and so is a teacher, by deleting its result.
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
            yield name, "of an attempt that was lost"
        elif name == "checkpoints" and (over or step.kind != StepKind.SHARED_PREFIX):
            yield (
                name,
                "all that branch from it are done"
                if step.kind == StepKind.SHARED_PREFIX
                else "the run is done",
            )
        elif name.startswith("model") and models and over:
            yield name, "the run is done, and all that learn from it"
        elif name in ("logits", "texts") and over:
            yield name, "all that read it are done"
