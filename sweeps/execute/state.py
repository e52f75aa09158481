"""State of a sweep: steps that are done, running, waiting or failed, and those that can start now."""

from __future__ import annotations

from dataclasses import dataclass, field

from sweeps.dag.expand import Dag, Step
from sweeps.estimate.cost import Cost
from sweeps.execute.jobs import Job
from sweeps.store import clock


@dataclass(frozen=True, slots=True)
class Running:
    """Submitted attempt."""

    step: Step
    number: int
    job: Job
    since: float = field(default_factory=clock.monotonic)


@dataclass(repr=False)
class State:
    """State of a sweep; printed, how many of its steps are done and why others are not."""

    dag: Dag
    cost: Cost
    found: set[str]
    """Steps that had results when the sweep started."""
    slots: int = 1
    """Jobs that run side by side here."""
    done: set[str] = field(default_factory=set)
    running: dict[str, Running] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    """Steps that other drivers run."""
    resting: dict[str, float] = field(default_factory=dict)
    """Steps that wait before a retry, with the time of the retry."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reasons of failed steps by id."""
    cancelled: set[str] = field(default_factory=set)
    """Failed steps that were canceled."""
    retried: int = 0
    """Number of retries."""
    troubles: list[str] = field(default_factory=list)
    """Warnings about the text, and messages about retries with their reasons."""
    waiting: str | None = None
    """Sentence about steps that wait for nodes that do not come; None if none do."""
    dashboard: str | None = None
    """Page of the sweep on the dashboard of its executor, if that has one."""
    halted: str | None = None
    """Reason why no more steps are started."""
    started: float = field(default_factory=clock.monotonic)

    def __post_init__(self) -> None:
        self._steps = {step.id: step for step in self.dag.steps}
        self._costs = {step.id: self.cost(step) for step in self.dag.steps}
        self._children: dict[str, list[str]] = {step.id: [] for step in self.dag.steps}
        self._missing: dict[str, int] = {}
        self._undone, self._finished = sum(self._costs.values()), 0.0
        for step in self.dag.steps:
            needs = [need.id for need in step.needs if need.id in self._steps]
            for need in needs:
                self._children[need].append(step.id)
            self._missing[step.id] = len(needs)
        self._priority = self._chains()
        self._open = {step for step, needs in self._missing.items() if not needs}
        for found in self.found:
            self.finish(found)

    def __str__(self) -> str:
        return "\n".join([self.summary, *self.problems()])

    __repr__ = __str__

    @property
    def summary(self) -> str:
        """Number of steps that are done, and of those done before."""
        ran = len(self.done) - len(self.found)
        kept = f", {len(self.found)} were there already" if self.found else ""
        return f"{len(self.done)} of {len(self.dag.steps)} steps done ({ran} now{kept})"

    def problems(self) -> list[str]:
        """Return a line for each reason why steps are not done: a halt, failures, and what they block."""
        found = [f"stopped: {self.halted}"] if self.halted else []
        found += [f"failed   {step}  {self._steps[step].label}: {why}" for step, why in self.failed.items()]
        return found + [f"blocked  {step.id}  {step.label}: a step it needs failed" for step in self.blocked]

    @property
    def blocked(self) -> list[Step]:
        """Steps that cannot run because a dependency failed or is blocked."""
        lost: set[str] = set()
        new = list(self.failed)
        while new:
            children = [child for step in new for child in self._children[step] if child not in lost]
            lost.update(children)
            new = children
        return [step for step in self.dag.steps if step.id in lost and step.id not in self.done]

    @property
    def complete(self) -> bool:
        """True if every step has a result."""
        return len(self.done) == len(self.dag.steps)

    @property
    def idle(self) -> bool:
        """True if no step is running, here or elsewhere, or waits for a retry."""
        return not (self.running or self.elsewhere or self.resting)

    def ready(self) -> list[Step]:
        """Return the steps that can start now, those with the longest critical path first."""
        now = clock.monotonic()
        self.resting = {step: until for step, until in self.resting.items() if until > now}
        ready = self._open.difference(self.running, self.elsewhere, self.failed, self.resting)
        return [self._steps[step] for step in sorted(ready, key=self._priority.__getitem__, reverse=True)]

    def finish(self, step: str) -> None:
        """Mark a step as done, and release its dependents."""
        if step in self.done:
            return
        self.done.add(step)
        self._undone -= self._costs[step]
        self._finished += 0.0 if step in self.found else self._costs[step]
        self._open.discard(step)
        self.elsewhere.discard(step)
        for child in self._children[step]:
            self._missing[child] -= 1
            if not self._missing[child] and child not in self.done:
                self._open.add(child)

    def fail(self, step: str, reason: str, *, cancelled: bool = False) -> None:
        """Mark a step as failed."""
        self.elsewhere.discard(step)
        self.failed[step] = reason
        if cancelled:
            self.cancelled.add(step)

    def take_up(self, step: str) -> None:
        """Unmark a failed step, which is tried again."""
        self.failed.pop(step, None)
        self.cancelled.discard(step)

    def step(self, step: str) -> Step:
        """Return the step of an id."""
        return self._steps[step]

    def seconds(self, step: Step) -> float:
        """Return the estimated seconds of a step of the DAG."""
        return self._costs[step.id]

    def seconds_left(self, slots: int) -> float:
        """Estimate the seconds left: the estimates of the remaining steps, scaled by the pace so far."""
        left = self._undone - sum(self._costs[step] for step in self.failed)
        finished = self._finished
        now = clock.monotonic()
        ran = sum(min(now - each.since, self._costs[step]) for step, each in self.running.items())
        pace = (now - self.started) * slots / (finished + ran) if finished else 1.0
        return max(0.0, (left - ran) * pace / slots)

    def _chains(self) -> dict[str, float]:
        """Return the seconds of the critical path from each step; dependencies come first in the DAG."""
        chains: dict[str, float] = {}
        for step in reversed(self.dag.steps):
            behind = max((chains[child] for child in self._children[step.id]), default=0.0)
            chains[step.id] = self._costs[step.id] + behind
        return chains
