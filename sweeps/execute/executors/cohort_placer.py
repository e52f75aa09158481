"""Choice of the cohorts of a driver that start next, of their resources, and of nodes that are avoided."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from scaling.errors import InputError
from sweeps.dag.step import Step
from sweeps.estimate.memory.layout import NODE, DeviceKind
from sweeps.estimate.memory.placement import resources_on
from sweeps.execute.executors.job_placement import (
    DISTRUST_SECONDS,
    LOSS_SECONDS,
    Demand,
    JobPlacement,
    Slot,
)
from sweeps.execute.executors.local import Executor
from sweeps.execute.jobs import AttemptOutcome, Job
from sweeps.execute.teacher_sharing import Cohort, kept_on_nodes
from sweeps.spec.resources import Resources
from sweeps.store import clock
from sweeps.store.outcomes import Ending

PATIENCE_SECONDS = 300.0
"""Seconds after which it is told that nodes are missing, longer than most take to start."""


class CohortPlacer:
    """Cohorts of one driver on its executor: on nodes where the executor has a placement, else in a queue."""

    def __init__(
        self, executor: Executor, rules: Sequence[Resources], seconds: Callable[[Step], float]
    ) -> None:
        self.executor, self.rules, self.seconds = executor, rules, seconds
        self.placement: JobPlacement | None = getattr(executor, "placement", None)
        self._room: Callable[[Resources], bool] = getattr(executor, "room", lambda _: True)
        self.demands: dict[tuple[str, ...], Demand] = {}
        """Demands by the steps of a cohort, for the kinds of nodes that there were last."""
        self._kinds: tuple[object, ...] = ()

    def has_room(self, *, changed: bool) -> bool:
        """Return True if another job may have room; ``changed`` if anything has happened since a choice."""
        return changed if self.placement else self._room(Resources())

    def choose(self, waiting: deque[Cohort]) -> list[Slot]:
        """Remove the cohorts that start next from those that wait, with their nodes; none without room."""
        if self.placement:
            kinds = self.executor.usual, getattr(self.executor, "gpu", None)
            if kinds != self._kinds:
                self.demands, self._kinds = {}, kinds
            return self.placement.choose(waiting, self.demand)
        resources = self.resources(*waiting[0])
        if not self._room(resources):
            return []  # the first cohort is not overtaken, so that it does not starve
        return [Slot(waiting.popleft(), (), resources, clock.monotonic(), math.inf)]

    def release(self, job: str) -> None:
        """Free the nodes of a job that is not submitted."""
        if self.placement:
            self.placement.release(job)

    def resources(self, *steps: Step) -> Resources:
        """Return the resources of steps that are trained together, sized for the smallest GPU there is."""
        gpu: DeviceKind | None = getattr(self.executor, "gpu", None)
        most = max((int(node.gpus) for node in self.placement.nodes), default=0) if self.placement else 0
        return resources_on(gpu, steps, self.rules, self.executor.usual, most or NODE)

    def demand(self, cohort: Cohort) -> Demand:
        """Return what a cohort asks of the nodes."""
        key = tuple(step.id for step in cohort)
        if not (found := self.demands.get(key)):
            kept, seconds = map(kept_on_nodes, cohort), sum(map(self.seconds, cohort))
            found = Demand(self.resources(*cohort), seconds, frozenset[str]().union(*kept))
            self.demands[key] = found
        return found

    def check(self, steps: Iterable[Step]) -> None:
        """Refuse steps whose resources the executor never has.

        Raises:
            InputError: with the step.
        """
        checked: set[Resources] = set()
        for step in steps:
            resources = self.resources(step)
            if resources in checked:
                continue
            if why := self.executor.misfit(resources):
                raise InputError(f"resources: {step.label} cannot run on {resources}: {why}")
            checked.add(resources)

    def avoid_nodes(self, outcome: AttemptOutcome, job: Job, *, claimed: bool) -> str | None:
        """Avoid nodes where a worker could not start, or was lost before it had, if others can hold the job.

        A node that is gone seems free until its cluster says so, and would be given one step after the other.

        Args:
            outcome: outcome of one of its attempts.
            job: the job.
            claimed: True if a worker has claimed that attempt.

        Returns:
            A sentence about the nodes, empty if it was said before; None if the job started, or has nowhere
            else to go.
        """
        lost = outcome.ending is Ending.LOST and not (claimed or outcome.gone)
        if self.placement is None or not (lost or outcome.ending is Ending.UNSTARTED):
            return None
        faulty = [outcome.node] if outcome.node else job.nodes
        if not faulty or self.placement.able(job.resources, but=faulty) < job.resources.nodes:
            return None
        seconds = LOSS_SECONDS if lost else DISTRUST_SECONDS
        nodes, time = self.placement.distrust(faulty, seconds), f"{seconds / 60:.0f} minutes"
        told = f"{', '.join(map(str, nodes))}: avoided for {time}, as no worker can start there"
        return f"{told}: {outcome.reason}" if nodes else ""

    def waiting(self, ready: int) -> str | None:
        """Say what waits for nodes that do not come, after a while; None if nothing does.

        Args:
            ready: number of steps that could start.
        """
        if not ready or self.placement is None or self.placement.waits is None:
            return None
        cohort, resources, since = self.placement.waits
        if (gone := clock.monotonic() - since) < PATIENCE_SECONDS:
            return None
        able, there = self.placement.able(resources), len(self.placement.nodes)
        avoided = ", ".join(map(str, self.placement.distrusted))
        return (
            f"{cohort[0].label} has waited {gone / 60:.0f} minutes for {resources}: {able} of {there} nodes "
            f"could take it{f' ({avoided} avoided)' if avoided else ''}; {ready} steps are ready in all; see "
            "if the cluster can start such nodes"
        )
