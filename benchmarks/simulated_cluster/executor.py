"""Executor that submits the jobs of one driver to a simulated cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable

from simulated_cluster.nodes import Cluster
from simulated_cluster.workers import QUEUE_SECONDS, Worker

from sweeps.execute.executors.job_placement import JobPlacement
from sweeps.execute.jobs import AttemptOutcome, Job
from sweeps.spec.resources import Resources
from sweeps.store.outcomes import Ending

LONGEST_WAIT = 5.0
"""Seconds for which a driver waits for outcomes; woken by one, it waits half of its own interval."""


class SimulatedExecutor:
    """Executor of one driver on a simulated cluster; several drivers have parts of its nodes."""

    usual = Resources()

    def __init__(self, cluster: Cluster, usual: Resources, mine: Callable[[str], bool]) -> None:
        self.cluster, self.usual, self.mine = cluster, usual, mine
        self.placement, self.version = JobPlacement(), -1
        self.workers: dict[str, Worker] = {}
        self.outcomes: list[AttemptOutcome] = []
        self.thread: threading.Thread | None = None
        """Thread of its driver while that waits for outcomes."""
        cluster.executors.append(self)
        self._look()

    def _look(self) -> None:
        if self.version != self.cluster.version:
            self.version = self.cluster.version
            self.placement.update(each.node for name, each in self.cluster.nodes.items() if self.mine(name))

    @property
    def slots(self) -> int:
        return max(1, sum(int(node.gpus or node.cpus) for node in self.placement.nodes))

    def misfit(self, resources: Resources) -> str | None:  # noqa: ARG002
        return None

    def room(self, resources: Resources) -> bool:  # noqa: ARG002
        return True

    def submit(self, job: Job) -> None:
        there = [self.cluster.nodes.get(name) for name in job.nodes]
        if any(node is None for node in there):
            self.cluster.clock.after(QUEUE_SECONDS, lambda: self._lose(job))
            return
        worker = Worker(self.cluster, job, self, [node for node in there if node])
        self.workers[job.name] = worker
        for node in worker.nodes:
            node.workers.add(worker)
        self.cluster.clock.after(QUEUE_SECONDS, worker.start)

    def _lose(self, job: Job) -> None:
        """Tell that a job was submitted to a node that was lost, as executors do in their next wait."""
        self.placement.release(job.name)
        self.outcomes += job.all_ended(Ending.LOST, "its node was lost before it began", gone=False)
        if self.thread:
            self.cluster.clock.wake(self.thread)

    def wait(self, seconds: float) -> list[AttemptOutcome]:
        if not self.outcomes:
            self.thread = threading.current_thread()
            self.cluster.clock.sleep(LONGEST_WAIT)
            self.thread = None
        self.cluster.clock.sleep(seconds / 2)
        self._look()
        found, self.outcomes = self.outcomes, []
        return found

    def drop(self, job: Job) -> None:
        self.placement.release(job.name)

    def close(self) -> None:
        for worker in list(self.workers.values()):
            worker.kill("its driver was lost", by_driver_loss=True)
