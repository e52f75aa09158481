"""Jobs: steps that one process, or gang of processes, runs together, and the outcomes of their attempts."""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.execute.steps.step import run_steps
from sweeps.resolve import dag_of
from sweeps.spec.resources import Resources
from sweeps.spec.spec import Sweep
from sweeps.store.clock import timestamp
from sweeps.store.faults import explain_store_error
from sweeps.store.leases import Attempt, LeaseWatch, attempt_path, create_once
from sweeps.store.outcomes import TRY_LATER, Ending, ending_of, error_line, is_transient
from sweeps.store.store import Store
from sweeps.store.time_limit import GRACE_SECONDS, STOPPING_SECONDS, TimeLimit

LOG = logging.getLogger("distlaw")
MAX_REASON_CHARACTERS = 2000
LOGICAL_GPUS = "DISTLAW_LOGICAL_GPUS"
"""Environment variable that is set where GPUs are only numbers, as in a rehearsal: steps train on the CPU."""


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """Outcome of one attempt at a step."""

    step: str
    """Id of the step."""
    number: int
    """Number of the attempt."""
    ending: Ending
    reason: str = ""
    """Reason in one line; empty if its result is in the store."""
    gone: bool = True
    """True if its process is known to have exited."""
    lived: float | None = None
    """Seconds that its process lived, if its parent has measured them."""
    node: str = ""
    """Node of the process that ended so, where its executor knows it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Steps of one cohort, the numbers of their attempts, and their resources."""

    steps: tuple[Step, ...]
    numbers: tuple[int, ...]
    resources: Resources
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Recorded with each claim, so that a driver recognizes the attempts of its jobs."""
    driver: str = ""
    """Driver that started it; empty if none did."""
    time_limit: float | None = None
    """Seconds that are reserved for its process, unless its driver reserves more; None if it may finish."""
    nodes: tuple[str, ...] = ()
    """Nodes that it runs on, in the order of its ranks, where its driver has chosen them."""

    @property
    def attempts(self) -> dict[str, int]:
        """Numbers of the attempts by step."""
        return {step.id: number for step, number in zip(self.steps, self.numbers, strict=True)}

    @property
    def processes(self) -> int:
        """Processes on each node: a command is started once, and launches others itself."""
        return 1 if any(step.trainer for step in self.steps) else self.resources.processes

    @property
    def grace(self) -> float:
        """Seconds in which its process stops after it was asked to, before it is killed."""
        commands = [step.trainer.grace_seconds + STOPPING_SECONDS for step in self.steps if step.trainer]
        return max(GRACE_SECONDS, *commands, 0.0)

    @property
    def about(self) -> dict[str, Any]:
        """Fields of its attempts' records: its name, members and resources."""
        used = self.resources
        return {
            "cpus": used.cpus,
            "gpus": used.gpus,
            "nodes": used.nodes,
            "members": len(self.steps),
            "job": self.name,
            "driver": self.driver,
        }

    def all_ended(self, ending: Ending, reason: str, *, gone: bool = True) -> list[AttemptOutcome]:
        """Return the same outcome for every step."""
        return [AttemptOutcome(step, number, ending, reason, gone) for step, number in self.attempts.items()]

    def as_json(self) -> dict[str, Any]:
        """Return the job as JSON, to run it in another process."""
        return {
            "steps": [step.as_json() for step in self.steps],
            "numbers": self.numbers,
            "resources": self.resources.model_dump(),
            "name": self.name,
            "driver": self.driver,
            "time_limit": self.time_limit,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """Build a job from :meth:`as_json`."""
        return cls(
            steps=tuple(Step.from_json(step) for step in data["steps"]),
            numbers=tuple(data["numbers"]),
            resources=Resources(**data["resources"]),
            name=data["name"],
            driver=data["driver"],
            time_limit=data["time_limit"],
        )


def run_job(store: Store, job: Job, limit: TimeLimit | None = None, **about: Any) -> Iterator[AttemptOutcome]:
    """Run a job in this process; errors are yielded as outcomes and logged, never raised.

    Args:
        store: the store.
        job: the job.
        limit: time limit of this process, if it has one.
        about: recorded with the claims.
    """
    import torch

    torch.set_num_threads(job.resources.cpus)
    if why := _missing_devices(job):
        yield from job.all_ended(Ending.UNSTARTED, why)
        return
    share = min(1.0, job.resources.gpus) or 1.0
    if share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)
    waiting = job.attempts
    try:
        results = run_steps(
            store, job.steps, numbers=job.attempts, limit=limit, gpu_share=share, **about, **job.about
        )
        for step, result in results:
            number = waiting.pop(step.id)
            if isinstance(result, Exception):
                yield failed_attempt(store, step.id, number, result)
            else:
                yield AttemptOutcome(step.id, number, Ending.DONE)
    except Exception as error:
        for step_id, number in waiting.items():
            yield failed_attempt(store, step_id, number, error)


def _missing_devices(job: Job) -> str | None:
    """Describe which GPUs this node has announced and lacks; None if it has them, or a command uses them."""
    count = job.resources.gpu_count
    if not count or os.environ.get(LOGICAL_GPUS) or any(step.trainer for step in job.steps):
        return None
    from sweeps.model.device import unusable_gpus

    why = unusable_gpus(count, int(os.environ.get("LOCAL_RANK", "0")))
    return why and f"{socket.gethostname()} lacks GPUs that it announces ({why})"


def failed_attempt(store: Store, step: str, number: int, error: BaseException) -> AttemptOutcome:
    """Log an exception, and return the outcome of its attempt."""
    LOG.info("%s failed", step, exc_info=error)
    return AttemptOutcome(
        step, number, ending_of(error, store.path), error_line(error)[:MAX_REASON_CHARACTERS]
    )


def record_end(store: Store, job: Job, outcome: AttemptOutcome, at_most: float = math.inf) -> None:
    """Record the end of an attempt whose process has exited without recording it.

    An attempt that never started is claimed first, so that its process, if it starts late, finds its number
    taken. Nothing is recorded for an attempt of another job, or for one whose process may be alive.

    Args:
        store: the store.
        job: the job that the attempt belongs to.
        outcome: how it ended.
        at_most: upper bound of the seconds that its process lived, if they were not measured.
    """
    claim_path = attempt_path(outcome.step, outcome.number)
    told = store.read(*claim_path)
    if told is None:
        told = job.about | {"started": timestamp(), "elapsed": 0.0, "due": 0.0}
        if not create_once(store, told, *claim_path):
            return
    elif told.get("job") != job.name or not outcome.gone:
        return
    told |= store.read(*attempt_path(outcome.step, outcome.number, "beat")) or {}
    heard = told.get("elapsed", 0.0)
    expected = min(heard + Attempt(outcome.number, told).unheard, max(heard, at_most))
    lived = expected if outcome.lived is None else outcome.lived
    told |= {"ending": outcome.ending, "reason": outcome.reason, "ended": timestamp()}
    told |= {"lived": lived, "unheard": max(0.0, lived - heard)}
    store.put_new(told, *attempt_path(outcome.step, outcome.number, "end"), durable=False)


def record_lifetime(store: Store, job: Job, seconds: float) -> None:
    """Add the lifetime of a job's process, which has exited, to the ends that it recorded."""
    for step, number in job.attempts.items():
        with suppress(Exception):  # slightly more time is counted then
            end = store.read(*attempt_path(step, number, "end"))
            if end and end.get("job") == job.name and "lived" not in end:
                store.write(end | {"lived": seconds}, *attempt_path(step, number, "end"), durable=False)


def record_failure(store: Store, step: Step, outcome: AttemptOutcome, reason: str) -> None:
    """Record in the store that a step is given up, and why."""
    record = {"reason": reason, "ending": outcome.ending, "attempt": outcome.number, "step": step.as_json()}
    with suppress(Exception):  # the store itself may be what failed
        store.write(record, step.id, "failure.json")


def main(arguments: Sequence[str]) -> int:
    """Run steps of the sweep recorded in a store, one after the other, as a batch system starts them.

    ``STORE ID...``; an id may be shortened. Returns 0 if all have their results, 2 for wrong arguments, 75
    (try again later) if another process works on one or it was preempted, and 1 if one failed.
    """
    try:
        root, *prefixes = arguments
        store = Store(root)
        steps = [recorded_step(store, prefix) for prefix in prefixes]
        for step in steps:
            _check_needs(store, step)
    except (ValueError, InputError) as error:
        hint = str(error) if isinstance(error, InputError) else "usage: python -m sweeps.run_step STORE ID..."
        sys.stderr.write(f"error: {hint}\n")
        return 2
    except Exception as error:
        if (found := explain_store_error(error)) is None:
            raise
        sys.stderr.write(f"error: {found[0]}\n")
        return TRY_LATER if is_transient(error) else found[1]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    codes = [_run_alone(store, step) for step in steps]
    return max(codes, key=(0, TRY_LATER, 1).index, default=0)


def recorded_step(store: Store, prefix: str) -> Step:
    """Return the step of the sweep recorded in ``store`` whose id begins with ``prefix``.

    Raises:
        InputError: if there is no sweep, or not one such step.
    """
    sweep = store.read("sweep.json")
    if sweep is None:
        raise store.no_sweep()
    found = [step for step in dag_of(Sweep(**sweep["spec"])).steps if step.id.startswith(prefix)]
    if len(found) != 1:
        raise InputError(f"{prefix!r} names {len(found) or 'no'} steps of {store.root}")
    return found[0]


def _check_needs(store: Store, step: Step) -> None:
    for need in step.needs:
        if store.result(need.id) is None:
            raise InputError(f"{step.id} needs {need.id} ({need.label}) first")


def _run_alone(store: Store, step: Step) -> int:
    number = LeaseWatch(store).wait(step.id)
    if number is None:
        LOG.info("%s: another process works on it", step.id)
        return TRY_LATER
    (outcome,) = run_job(store, Job(steps=(step,), numbers=(number,), resources=Resources()))
    LOG.info("%s: %s %s", step.id, outcome.ending, outcome.reason)
    if outcome.ending is Ending.DONE:
        return 0
    if outcome.ending in (Ending.HELD, Ending.LOST, Ending.CANCELLED):
        return TRY_LATER
    record_failure(store, step, outcome, outcome.reason)
    return 1
