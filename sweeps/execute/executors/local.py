"""Executors of jobs: in this process, in new processes, on Ray or Slurm. All state is in the store."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Sequence
from typing import Protocol

from scaling.errors import InputError
from sweeps.execute.executors.fork_server import ForkServer
from sweeps.execute.executors.gpus import smallest_gpu, visible_gpus
from sweeps.execute.executors.job_placement import JobPlacement, NodeCapacity
from sweeps.execute.executors.mps import sharing_environment
from sweeps.execute.executors.ranks import free_port, ranks_of
from sweeps.execute.jobs import AttemptOutcome, Job, run_job
from sweeps.spec.resources import GPU_SHARE, Resources
from sweeps.store.store import Store


class Executor(Protocol):
    """Executor of jobs whose dependencies are in the store.

    It has a ``placement`` of its jobs on its nodes, from which it releases those that end, and ``gpu``, its
    smallest kind of GPU if that is known; or it has ``room``, which tells if another job may be submitted.
    """

    slots: int
    """Number of default-size jobs that run at once."""
    usual: Resources
    """Default resources of a job."""

    def misfit(self, resources: Resources) -> str | None:
        """Describe why ``resources`` are never available here; None if they can be."""

    def submit(self, job: Job) -> None:
        """Start ``job`` on the nodes that were chosen for it."""

    def wait(self, seconds: float) -> list[AttemptOutcome]:
        """Return attempts that ended since the last call; wait for one for up to ``seconds``."""

    def drop(self, job: Job) -> None:
        """Drop a job that others take over, and end it if possible."""

    def close(self) -> None:
        """Stop all running jobs."""


EXECUTORS = ("process", "ray", "slurm", "inline")


def executor_for(name: str | None, store: Store, *, cores: int, address: str | None) -> Executor:
    """Return the executor of a name; by default Ray with an address or a GPU, else processes.

    Raises:
        InputError: for an unknown name, an address without a cluster, or one that the executor does not use.
    """
    refuse_unknown(name)
    if address and name not in (None, "ray"):
        raise InputError(f"--address: {address} is a Ray cluster, which --executor {name} does not use")
    if name is None:
        name = "ray" if address or visible_gpus() else "process"
    if name == "inline":
        return InlineExecutor(store)
    if name == "process":
        return ProcessExecutor(store, cores)
    if name == "slurm":
        from sweeps.execute.executors.slurm import SlurmExecutor

        return SlurmExecutor(store)
    from sweeps.execute.executors.ray_executor import RayExecutor

    return RayExecutor(store, address=address or "local", cores=None if address else cores)


def refuse_unknown(name: str | None) -> None:
    """Refuse the name of an executor that does not exist.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in (None, *EXECUTORS):
        raise InputError(f"--executor: {', '.join(EXECUTORS[:-1])} or {EXECUTORS[-1]}, not {name!r}")


class InlineExecutor:
    """Executor that runs each job in this process, in :meth:`wait`."""

    slots, usual = 1, Resources()

    def __init__(self, store: Store) -> None:
        self.store = store
        self.queue: list[Job] = []

    def misfit(self, resources: Resources) -> str | None:
        return "the inline executor has only one process" if resources.gang else None

    def room(self, resources: Resources) -> bool:  # noqa: ARG002
        return not self.queue

    def submit(self, job: Job) -> None:
        self.queue.append(job)

    def wait(self, seconds: float) -> list[AttemptOutcome]:
        if not self.queue:
            time.sleep(seconds)
            return []
        return list(run_job(self.store, self.queue.pop(0)))

    def drop(self, job: Job) -> None:
        if job in self.queue:
            self.queue.remove(job)

    def close(self) -> None:
        self.queue.clear()


class ProcessExecutor:
    """Executor that runs each job on this machine, in a new process, or in one for each of its GPUs."""

    def __init__(self, store: Store, cores: int, gpus: Sequence[str] | None = None) -> None:
        names = visible_gpus() if gpus is None else gpus
        self.store, self.cores, self.gpus = store, cores, tuple(names)
        self.placement = JobPlacement([NodeCapacity("this machine", cores, len(names))])
        self.usual = Resources(gpus=GPU_SHARE if names else 0)
        self.gpu = smallest_gpu() if names else None
        self.slots = min(cores, int(len(names) / GPU_SHARE)) if names else cores
        self.idle = [ForkServer() for _ in range(self.slots)]
        """Fork servers that are ready, or starting."""
        self.busy: dict[ForkServer, Job] = {}
        """Job of each of the others."""

    def misfit(self, resources: Resources) -> str | None:
        there = len(self.gpus)
        if resources.nodes > 1:
            return "the process executor has one machine; use --executor ray or slurm"
        if resources.gpu_count > there:
            return f"this machine has {there or 'no'} GPU{'s' * (there != 1)}"
        if resources.cpus > self.cores:
            return f"this machine has {self.cores} cores for the sweep"
        return None

    def submit(self, job: Job) -> None:
        forker = self.idle.pop() if self.idle else ForkServer()
        self.busy[forker] = job
        ranks: list[dict[str, str]] = [{}]
        if job.processes > 1:
            (ranks,) = ranks_of(job.resources, "127.0.0.1", free_port(), each=job.processes)
        (used,) = self.placement.gpus_of(job.name)
        seen = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus[k] for k in used)} if self.gpus else {}
        seen |= sharing_environment(job.resources.gpus)
        forker.start(self.store, job, [seen | rank for rank in ranks])

    def wait(self, seconds: float) -> list[AttemptOutcome]:
        found: list[AttemptOutcome] = []
        for forker in select.select(self.busy, [], [], seconds)[0]:
            found += forker.outcomes()
            if forker.job is None:
                self._free(forker)
                self._keep(forker)
        return found

    def drop(self, job: Job) -> None:
        for forker in [forker for forker, had in self.busy.items() if had is job]:
            self._free(forker)
            forker.close()

    def close(self) -> None:
        """Ask all jobs to stop with a checkpoint; kill those that do not after a while."""
        self.wait(0.0)
        for forker in self.busy:
            forker.stop(signal.SIGTERM)
        graces = [forker.job.grace for forker in self.busy if forker.job]
        deadline = time.monotonic() + max(graces, default=0.0)
        while self.busy and time.monotonic() < deadline:
            self.wait(max(0.0, deadline - time.monotonic()))
        for forker in [*self.busy, *self.idle]:
            forker.close()
        self.busy, self.idle = {}, []

    def _free(self, forker: ForkServer) -> None:
        self.placement.release(self.busy.pop(forker).name)

    def _keep(self, forker: ForkServer) -> None:
        if forker.alive:
            self.idle.append(forker)
        else:
            forker.close()
