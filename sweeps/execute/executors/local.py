"""Executors of jobs: in this process, in new processes, or on Ray. All state is in the store."""

from __future__ import annotations

import select
import signal
import time
from pathlib import Path
from typing import Protocol

from scaling.errors import InputError
from sweeps.execute.executors.fork_server import ForkServer
from sweeps.execute.jobs import AttemptOutcome, Job, run_job
from sweeps.spec.resources import Resources
from sweeps.store.store import Store


class Executor(Protocol):
    """Executor of jobs whose dependencies are in the store."""

    slots: int
    """Number of default-size jobs that run at once."""
    usual: Resources
    """Default resources of a job."""

    def misfit(self, resources: Resources) -> str | None:
        """Describe why ``resources`` are never available here; None if they can be."""

    def room(self, resources: Resources) -> bool:
        """Return True if a job with ``resources`` may be submitted now."""

    def submit(self, job: Job) -> None:
        """Start ``job`` as soon as there is room."""

    def wait(self, seconds: float) -> list[AttemptOutcome]:
        """Return attempts that ended since the last call; wait for one for up to ``seconds``."""

    def drop(self, job: Job) -> None:
        """Drop a job that others take over, and end it if possible."""

    def close(self) -> None:
        """Stop all running jobs."""


EXECUTORS = ("process", "ray", "inline")


def executor_for(name: str | None, store: Store, *, cores: int, address: str | None) -> Executor:
    """Return the executor of a name; by default Ray with an address or a GPU, else processes.

    Raises:
        InputError: for an unknown name, or an address without a cluster.
    """
    refuse_unknown(name)
    if name is None:
        name = "ray" if address or _gpus() else "process"
    if name == "inline":
        return InlineExecutor(store)
    if name == "process":
        return ProcessExecutor(store, cores)
    from sweeps.execute.executors.ray_executor import RayExecutor

    return RayExecutor(store, address=address or "local", cores=None if address else cores)


def refuse_unknown(name: str | None) -> None:
    """Refuse the name of an executor that does not exist.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in (None, *EXECUTORS):
        raise InputError(f"--executor: {', '.join(EXECUTORS[:-1])} or {EXECUTORS[-1]}, not {name!r}")


def _gpus() -> bool:
    """Return True if this machine has a GPU, without importing torch."""
    return Path("/proc/driver/nvidia/gpus").is_dir() or Path("/dev/kfd").exists()


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
    """Executor that runs each job in a new process on this machine."""

    usual = Resources()

    def __init__(self, store: Store, cores: int) -> None:
        self.store, self.slots = store, cores
        self.idle = [ForkServer() for _ in range(cores)]
        """Fork servers that are ready, or starting."""
        self.busy: list[ForkServer] = []

    def misfit(self, resources: Resources) -> str | None:
        if resources.gpus or resources.nodes > 1:
            return "the process executor does not assign GPUs; use --executor ray"
        if resources.cpus > self.slots:
            return f"this machine has {self.slots} cores for the sweep"
        return None

    def room(self, resources: Resources) -> bool:
        taken = sum(forker.job.resources.cpus for forker in self.busy if forker.job)
        return taken + resources.cpus <= self.slots

    def submit(self, job: Job) -> None:
        forker = self.idle.pop() if self.idle else ForkServer()
        self.busy.append(forker)
        forker.start(self.store, job)

    def wait(self, seconds: float) -> list[AttemptOutcome]:
        found: list[AttemptOutcome] = []
        for forker in select.select(self.busy, [], [], seconds)[0]:
            found += forker.outcomes()
            if forker.job is None:
                self.busy.remove(forker)
                self._keep(forker)
        return found

    def drop(self, job: Job) -> None:
        for forker in [forker for forker in self.busy if forker.job is job]:
            self.busy.remove(forker)
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
        for forker in self.busy + self.idle:
            forker.close()
        self.busy, self.idle = [], []

    def _keep(self, forker: ForkServer) -> None:
        if forker.alive:
            self.idle.append(forker)
        else:
            forker.close()
