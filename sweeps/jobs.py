"""A job: steps that one process, or gang of processes, works on together, and how each of them ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sweeps.endings import Ending, ending_of, reason_of
from sweeps.resources import Resources
from sweeps.run_step import run_steps
from sweeps.steps import Step
from sweeps.store import Store

LOG = logging.getLogger("distlaw")
LONGEST_REASON = 2000


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
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """The inverse of :meth:`as_json`."""
        return cls(
            steps=tuple(Step.from_json(step) for step in data["steps"]),
            numbers=tuple(data["numbers"]),
            resources=Resources(**data["resources"]),
        )


def run_job(store: Store, job: Job, **about: Any) -> Iterator[Outcome]:
    """Run a job in this process; what goes wrong is told and logged, never raised."""
    import torch

    torch.set_num_threads(job.resources.cpus)
    if 0 < job.resources.gpus < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(job.resources.gpus)
    waiting, resources = job.attempts, job.resources
    about |= {"cpus": resources.cpus, "gpus": resources.gpus, "nodes": resources.nodes}
    about["members"] = len(job.steps)
    try:
        for step, result in run_steps(store, job.steps, numbers=job.attempts, **about):
            number = waiting.pop(step.id)
            if isinstance(result, Exception):
                yield _failure(step.id, number, result)
            else:
                yield Outcome(step.id, number, Ending.DONE)
    except Exception as error:
        for step_id, number in waiting.items():
            yield _failure(step_id, number, error)


def _failure(step: str, number: int, error: Exception) -> Outcome:
    LOG.info("%s failed", step, exc_info=error)
    return Outcome(step, number, ending_of(error), reason_of(error)[:LONGEST_REASON])
