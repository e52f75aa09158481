"""A job: steps that one process, or gang of processes, works on together, and how each of them ends."""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.execute.step import run_steps
from sweeps.resolve import dag_of
from sweeps.spec.resources import Resources
from sweeps.spec.spec import Sweep
from sweeps.store.faults import explain
from sweeps.store.leases import Watch
from sweeps.store.outcomes import Ending, ending_of, is_transient, reason_of
from sweeps.store.store import Store

LOG = logging.getLogger("distlaw")
LONGEST_REASON = 2000
TRY_LATER = 75
"""Exit code by which batch systems know that a job may be started again (EX_TEMPFAIL)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt at a step ended."""

    step: str
    """Its id."""
    number: int
    """Of the attempt."""
    ending: Ending
    reason: str = ""
    """One line; empty if its result is in the store."""
    gone: bool = True
    """Whether its process is known to have ended."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Steps of one cohort, the attempts that they become, and what they run on."""

    steps: tuple[Step, ...]
    numbers: tuple[int, ...]
    resources: Resources
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Told with each claim, so that whoever started the job knows its own attempts from those of others."""
    driver: str = ""
    """The driver that started it; empty if none did."""
    bound: float | None = None
    """Seconds after which it ends if its driver is gone or silent; None if it may finish all the same."""

    @property
    def attempts(self) -> dict[str, int]:
        """The number of each attempt by the step's id."""
        return {step.id: number for step, number in zip(self.steps, self.numbers, strict=True)}

    def all_ended(self, ending: Ending, reason: str, *, gone: bool = True) -> list[Outcome]:
        """One outcome for every step."""
        return [Outcome(step, number, ending, reason, gone) for step, number in self.attempts.items()]

    def as_json(self) -> dict[str, Any]:
        """Everything needed to run the job elsewhere."""
        return {
            "steps": [step.as_json() for step in self.steps],
            "numbers": self.numbers,
            "resources": self.resources.model_dump(),
            "name": self.name,
            "driver": self.driver,
            "bound": self.bound,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """The inverse of :meth:`as_json`."""
        return cls(
            steps=tuple(Step.from_json(step) for step in data["steps"]),
            numbers=tuple(data["numbers"]),
            resources=Resources(**data["resources"]),
            name=data["name"],
            driver=data["driver"],
            bound=data["bound"],
        )


def run_job(store: Store, job: Job, **about: Any) -> Iterator[Outcome]:
    """Run a job in this process; what goes wrong is told and logged, never raised."""
    import torch

    torch.set_num_threads(job.resources.cpus)
    if 0 < job.resources.gpus < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(job.resources.gpus)
    waiting, resources = job.attempts, job.resources
    about |= {"cpus": resources.cpus, "gpus": resources.gpus, "nodes": resources.nodes}
    about |= {"members": len(job.steps), "job": job.name}
    if job.bound is not None:
        about |= {"driver": job.driver, "bound": job.bound}
    try:
        for step, result in run_steps(store, job.steps, numbers=job.attempts, **about):
            number = waiting.pop(step.id)
            if isinstance(result, Exception):
                yield failure(store, step.id, number, result)
            else:
                yield Outcome(step.id, number, Ending.DONE)
    except Exception as error:
        for step_id, number in waiting.items():
            yield failure(store, step_id, number, error)


def failure(store: Store, step: str, number: int, error: BaseException) -> Outcome:
    """The outcome that an exception is; it is logged."""
    LOG.info("%s failed", step, exc_info=error)
    return Outcome(step, number, ending_of(error, store.path), reason_of(error)[:LONGEST_REASON])


def record_failure(store: Store, step: Step, outcome: Outcome, reason: str) -> None:
    """Say in the store that a step is given up, and why."""
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
        steps = [_recorded(store, prefix) for prefix in prefixes]
    except (ValueError, InputError) as error:
        hint = str(error) if isinstance(error, InputError) else "usage: python -m sweeps.run_step STORE ID..."
        sys.stderr.write(f"error: {hint}\n")
        return 2
    except Exception as error:
        if (found := explain(error)) is None:
            raise
        sys.stderr.write(f"error: {found[0]}\n")
        return TRY_LATER if is_transient(error) else found[1]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    codes = [_run_alone(store, step) for step in steps]
    return max(codes, key=(0, TRY_LATER, 1).index, default=0)


def _recorded(store: Store, prefix: str) -> Step:
    sweep = store.read("sweep.json")
    if sweep is None:
        raise store.no_sweep()
    found = [step for step in dag_of(Sweep(**sweep["spec"])).steps if step.id.startswith(prefix)]
    if len(found) != 1:
        raise InputError(f"{prefix!r} names {len(found) or 'no'} steps of {store.root}")
    for need in found[0].needs:
        if store.result(need.id) is None:
            raise InputError(f"{found[0].id} needs {need.id} ({need.label}) first")
    return found[0]


def _run_alone(store: Store, step: Step) -> int:
    number = Watch(store).wait(step.id)
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
