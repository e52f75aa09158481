"""Where jobs run: in this process, in fresh ones beside it, on Ray. Executors launch; the store remembers."""

from __future__ import annotations

import select
import signal
import time
from pathlib import Path
from typing import Protocol

from scaling.errors import InputError
from sweeps.execute.fork_server import GRACE_SECONDS, Forker
from sweeps.execute.jobs import Job, Outcome, run_job
from sweeps.spec.resources import Resources
from sweeps.store.store import Store


class Executor(Protocol):
    """Runs jobs whose teachers are in the store."""

    slots: int
    """Jobs of the usual size that run side by side."""
    usual: Resources
    """What a job runs on where the spec does not say."""

    def misfit(self, resources: Resources) -> str | None:
        """Why ``resources`` can never be had here; None if they can."""

    def room(self, resources: Resources) -> bool:
        """Whether a job may be submitted that runs on ``resources``."""

    def submit(self, job: Job) -> None:
        """Start ``job`` as soon as there is room."""

    def wait(self, seconds: float) -> list[Outcome]:
        """How steps ended since the last call: returns when one has, after ``seconds`` at the latest."""

    def drop(self, job: Job) -> None:
        """Forget a job that others will do, and end it if it can be reached."""

    def close(self) -> None:
        """Stop everything that still runs."""


def executor_for(name: str | None, store: Store, *, cores: int, address: str | None) -> Executor:
    """The executor of a name; if none is given, Ray where an address or a GPU asks for it, else processes.

    Raises:
        InputError: for an unknown name, or an address that leads nowhere.
    """
    if name is None:
        name = "ray" if address or _gpus() else "process"
    if name == "inline":
        return Inline(store)
    if name == "process":
        return Processes(store, cores)
    if name == "ray":
        from sweeps.execute.ray_executor import Ray

        return Ray(store, address=address or "local", cores=None if address else cores)
    raise InputError(f"--executor: process, ray or inline, not {name!r}")


def _gpus() -> bool:
    """Whether this machine has a GPU, without importing torch."""
    return Path("/proc/driver/nvidia/gpus").is_dir() or Path("/dev/kfd").exists()


class Inline:
    """Runs each job in this process when waited for."""

    slots, usual = 1, Resources()

    def __init__(self, store: Store) -> None:
        self.store = store
        self.queue: list[Job] = []

    def misfit(self, resources: Resources) -> str | None:
        return "one process cannot be several" if resources.gang else None

    def room(self, resources: Resources) -> bool:  # noqa: ARG002
        return not self.queue

    def submit(self, job: Job) -> None:
        self.queue.append(job)

    def wait(self, seconds: float) -> list[Outcome]:
        if not self.queue:
            time.sleep(seconds)
            return []
        return list(run_job(self.store, self.queue.pop(0)))

    def drop(self, job: Job) -> None:
        if job in self.queue:
            self.queue.remove(job)

    def close(self) -> None:
        self.queue.clear()


class Processes:
    """Runs each job in a fresh process of its own on this machine."""

    usual = Resources()

    def __init__(self, store: Store, cores: int) -> None:
        self.store, self.slots = store, cores
        self.idle = [Forker() for _ in range(cores)]
        """Ready, or getting there while the sweep is looked at."""
        self.busy: list[Forker] = []

    def misfit(self, resources: Resources) -> str | None:
        if resources.gpus or resources.nodes > 1:
            return "processes of this machine share its GPUs unasked; use --executor ray"
        if resources.cpus > self.slots:
            return f"there are {self.slots} cores here"
        return None

    def room(self, resources: Resources) -> bool:
        taken = sum(forker.job.resources.cpus for forker in self.busy if forker.job)
        return taken + resources.cpus <= self.slots

    def submit(self, job: Job) -> None:
        forker = self.idle.pop() if self.idle else Forker()
        self.busy.append(forker)
        forker.start(self.store, job)

    def wait(self, seconds: float) -> list[Outcome]:
        found: list[Outcome] = []
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
        """Ask all to stop, so that they write a checkpoint; after a while, end them."""
        self.wait(0.0)
        for forker in self.busy:
            forker.stop(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self.busy and time.monotonic() < deadline:
            self.wait(max(0.0, deadline - time.monotonic()))
        for forker in self.busy + self.idle:
            forker.close()
        self.busy, self.idle = [], []

    def _keep(self, forker: Forker) -> None:
        if forker.alive:
            self.idle.append(forker)
        else:
            forker.close()
