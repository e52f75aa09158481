"""The sweep itself: submit what is ready, release students when their teacher is done, name what failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sweeps.executors import Executor, Outcome
from sweeps.steps import Dag, Step
from sweeps.store import Store

CRASHES_FORGIVEN = 2
"""Attempts after the first for a step whose process died."""
POLL_SECONDS = 0.5

Cost = Callable[[Step], float]
"""Estimated seconds of a step."""


@dataclass
class State:
    """Where a sweep stands."""

    dag: Dag
    cost: Cost
    found: set[str]
    """Steps whose results were there when the sweep started."""
    done: set[str] = field(default_factory=set)
    running: dict[str, tuple[Step, float]] = field(default_factory=dict)
    """Step and the time it was submitted, by id."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reason by id."""
    crashes: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def blocked(self) -> list[Step]:
        """Steps that can never run because a step they need failed, or is blocked itself."""
        lost = set(self.failed)
        blocked = []
        for step in self.dag.steps:
            if any(need.id in lost for need in step.needs):
                blocked.append(step)
                lost.add(step.id)
        return blocked

    @property
    def complete(self) -> bool:
        """Whether every step has its result."""
        return len(self.done) == len(self.dag.steps)

    def ready(self) -> list[Step]:
        """Steps that could start now: those that others wait for first, then the longest."""
        waiting = [
            step
            for step in self.dag.steps
            if step.id not in self.done
            and step.id not in self.failed
            and step.id not in self.running
            and all(need.id in self.done for need in step.needs)
        ]
        others = self.dag.waiting_for
        return sorted(waiting, key=lambda step: (others[step.id] == 0, -self.cost(step)))

    def settle(self, outcome: Outcome) -> None:
        """Account for one ended attempt."""
        step = outcome.step
        self.running.pop(step.id, None)
        if outcome.error is None:
            self.done.add(step.id)
        elif outcome.crashed and self.crashes.get(step.id, 0) < CRASHES_FORGIVEN:
            self.crashes[step.id] = self.crashes.get(step.id, 0) + 1
        else:
            self.failed[step.id] = outcome.error

    def seconds_left(self, slots: int) -> float:
        """Estimated seconds to the end: the costs left, corrected by how this session's steps compare."""
        todo = [s for s in self.dag.steps if s.id not in self.done and s.id not in self.failed]
        left = sum(self.cost(step) for step in todo)
        finished = sum(self.cost(s) for s in self.dag.steps if s.id in self.done and s.id not in self.found)
        elapsed = time.monotonic() - self.started
        ran = sum(min(time.monotonic() - since, self.cost(step)) for step, since in self.running.values())
        pace = elapsed * slots / (finished + ran) if finished else 1.0
        return max(0.0, (left - ran) * pace / slots)


def run(dag: Dag, store: Store, executor: Executor, cost: Cost, watch: Callable[[State], None]) -> State:
    """Run every step of ``dag`` that has no result; return where things stand at the end.

    A failed step does not stop the others; its students are blocked. ``watch`` is called about twice a
    second. Interrupting leaves every finished result in the store: the same call goes on from there.
    """
    found = {step.id for step in dag.steps if store.result(step.id)}
    state = State(dag=dag, cost=cost, found=found, done=set(found))
    while True:
        for step in state.ready()[: executor.slots - len(state.running)]:
            state.running[step.id] = (step, time.monotonic())
            executor.submit(step)
        watch(state)
        if not state.running:
            return state
        for outcome in executor.wait(POLL_SECONDS):
            state.settle(outcome)
