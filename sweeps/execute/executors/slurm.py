"""Executor of jobs on the nodes of the Slurm allocation that this process runs in, each started by ``srun``.

It chooses the nodes itself, by cores and whole GPUs, so that no job waits inside ``srun``, where nobody could
tell it from one that hangs.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from scaling.errors import InputError
from sweeps.execute.executors.gpus import smallest_gpu
from sweeps.execute.executors.job_placement import JobPlacement, NodeCapacity
from sweeps.execute.executors.ranks import ranks_of
from sweeps.execute.jobs import AttemptOutcome, Job
from sweeps.spec.resources import Resources
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store

PORTS = range(20_000, 30_000)
"""Ports where processes of several nodes meet, below those that Linux gives out itself."""


@dataclass(frozen=True, kw_only=True)
class SlurmNode:
    """Node of an allocation."""

    name: str
    address: str
    cpus: int
    gpus: int

    @property
    def capacity(self) -> NodeCapacity:
        """Cores and GPUs, as the placement takes them."""
        return NodeCapacity(self.name, self.cpus, self.gpus)


def allocation() -> list[SlurmNode]:
    """Return the nodes of the allocation that this process runs in.

    Raises:
        InputError: outside an allocation.
    """
    told = os.environ.get("SLURM_JOB_NODELIST")
    if not told:
        raise InputError(
            "--executor slurm: this is no Slurm allocation (SLURM_JOB_NODELIST is not set); start it by "
            "sbatch or salloc, or have `distlaw sweep launch slurm` write the script"
        )
    command = ["scontrol", "show", "node", told, "--oneliner"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    places = re.findall(r"^NodeName=(\S+).* NodeAddr=(\S+)", shown, re.MULTILINE)
    cpus = cpus_of(os.environ["SLURM_JOB_CPUS_PER_NODE"])
    gpus = int(os.environ.get("SLURM_GPUS_ON_NODE") or 0)
    return [
        SlurmNode(name=name, address=address, cpus=each, gpus=gpus)
        for (name, address), each in zip(places, cpus, strict=True)
    ]


def cpus_of(told: str) -> list[int]:
    """Return the cores of each node, from Slurm's short form such as ``16(x2),8``."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", told)
    return [int(cpus) for cpus, times in found for _ in range(int(times or 1))]


class SlurmExecutor:
    """Executor that runs each job as a step of this Slurm allocation, on one node or several."""

    def __init__(self, store: Store) -> None:
        self.store, self.nodes = store, allocation()
        self.placement = JobPlacement(node.capacity for node in self.nodes)
        self.usual = Resources(gpus=1 if self.nodes[0].gpus else 0)
        self.gpu = smallest_gpu() if self.usual.gpus else None
        self.slots = sum(min(node.cpus, node.gpus or node.cpus) for node in self.nodes)
        self.busy: list[SlurmStep] = []

    def misfit(self, resources: Resources) -> str | None:
        if 0 < resources.gpus < 1:
            return (
                "srun gives out whole GPUs only; set gpus: 1, or let every node of an array run "
                "--executor process, which shares them"
            )
        able = self.placement.able(resources)
        if able >= resources.nodes:
            return None
        return f"{able} of the allocation's {len(self.nodes)} nodes could take it"

    def submit(self, job: Job) -> None:
        by_name = {node.name: node for node in self.nodes}
        step = SlurmStep(job, [by_name[name] for name in job.nodes])
        self.busy.append(step)
        step.start(self.store)

    def wait(self, seconds: float) -> list[AttemptOutcome]:
        if not self.busy:
            time.sleep(seconds)
            return []
        found: list[AttemptOutcome] = []
        for step in select.select(self.busy, [], [], seconds)[0]:
            if not step.read():
                found += step.outcomes()
                self._free(step)
        return found

    def drop(self, job: Job) -> None:
        for step in [step for step in self.busy if step.job is job]:
            step.stop(signal.SIGTERM)
            step.close()
            self._free(step)

    def close(self) -> None:
        """Ask all jobs to stop with a checkpoint; kill those that do not after a while."""
        for step in self.busy:
            step.stop(signal.SIGTERM)
        deadline = time.monotonic() + max((step.job.grace for step in self.busy), default=0.0)
        while self.busy and time.monotonic() < deadline:
            self.wait(max(0.0, deadline - time.monotonic()))
        for step in self.busy:
            step.stop(signal.SIGKILL)
            step.close()
        self.busy = []

    def _free(self, step: SlurmStep) -> None:
        self.busy.remove(step)
        self.placement.release(step.job.name)


class SlurmStep:
    """One ``srun``: a task on each of its nodes, which starts the job's processes there."""

    def __init__(self, job: Job, nodes: list[SlurmNode]) -> None:
        self.job, self.nodes = job, nodes
        self.printed = b""

    def start(self, store: Store) -> None:
        """Start it.

        Raises:
            OSError: if no process can be started.
        """
        host, port = self.nodes[0].address, random.choice(PORTS)  # noqa: S311
        ranks: list[list[dict[str, str]]] = [[{}]]
        if self.job.resources.gang:
            ranks = ranks_of(self.job.resources, host, port, each=self.job.processes)
        self.process = subprocess.Popen(  # noqa: S603
            srun_command(self.job, self.nodes),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is handled by the driver
        )
        assert self.process.stdin is not None
        request = {"store": store.url, "job": self.job.as_json(), "ranks": ranks}
        with suppress(BrokenPipeError):  # outcomes() finds it ended
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.close()

    def fileno(self) -> int:
        """Return a file descriptor that is readable when there is something to :meth:`read`."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def read(self) -> bool:
        """Read what it printed; return False at the end."""
        data = os.read(self.fileno(), 2**16)
        self.printed += data
        return bool(data)

    def outcomes(self) -> list[AttemptOutcome]:
        """Return how its attempts ended, after it has."""
        code = self.process.wait()
        self.close()
        found: dict[str, AttemptOutcome] = {}
        for line in self.printed.splitlines():
            for outcome in map(_outcome, _told(line)):
                if outcome.ending is not Ending.DONE or outcome.step not in found:
                    found[outcome.step] = outcome  # a failure of any node is one of the step
        for silent in self.job.all_ended(Ending.LOST, f"srun ended with {code} and told nothing", gone=False):
            found.setdefault(silent.step, silent)
        return list(found.values())

    def stop(self, number: signal.Signals) -> None:
        """Send a signal to ``srun``, which passes it on to its tasks."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        """Read nothing more."""
        assert self.process.stdout is not None
        self.process.stdout.close()


def srun_command(job: Job, nodes: list[SlurmNode]) -> list[str]:
    """Return the command that starts a task on each of ``nodes`` with its share of cores, GPUs and memory."""
    used = job.resources
    command = ["srun", f"--nodes={used.nodes}", f"--ntasks={used.nodes}", "--ntasks-per-node=1", "--exact"]
    command += [f"--nodelist={','.join(node.name for node in nodes)}", f"--cpus-per-task={used.cpus}"]
    command += ["--kill-on-bad-exit=0", "--unbuffered", f"--job-name={job.steps[0].id}"]
    if used.gpu_count:
        command.append(f"--gpus-per-node={used.gpu_count}")
    if memory := os.environ.get("SLURM_MEM_PER_NODE"):  # a step would take all of it
        share = min(used.cpus / node.cpus for node in nodes)
        command.append(f"--mem={max(1, int(int(memory) * share))}M")
    return [*command, sys.executable, "-m", "sweeps.execute.executors.slurm_task"]


def _told(line: bytes) -> list[Any]:
    """Return the outcomes in a line of a task; none in a line that libraries have printed."""
    with suppress(ValueError):
        told = json.loads(line)
        return list(told["outcomes"]) if isinstance(told, dict) and "outcomes" in told else []
    return []


def _outcome(told: list[Any]) -> AttemptOutcome:
    step, number, ending, reason, gone, lived = told
    return AttemptOutcome(step, number, Ending(ending), reason, gone, lived)
