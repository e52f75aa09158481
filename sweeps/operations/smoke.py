"""Smoke run: the smallest step of every shape for a few optimizer steps, before the money is spent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sweeps.dag.expand import Dag, with_caches, with_preludes
from sweeps.dag.resolved import Resolved
from sweeps.dag.step import Step
from sweeps.estimate.plan_text import duration
from sweeps.execute.run import Watch, Where, run_sweep
from sweeps.execute.state import State
from sweeps.store.store import Store

OPTIMIZER_STEPS = 20


def smoke_dag(dag: Dag, optimizer_steps: int = OPTIMIZER_STEPS) -> Dag:
    """Return a DAG with one run of every shape, method and teacher's shape of ``dag``, cut to a few steps.

    Teachers, preludes and caches are cut alike, so that every kind of step and every hand-over is tried. What
    is measured but not trained stays as it is.
    """
    short: dict[str, Step] = {}

    def cut(step: Step | None) -> Step | None:
        if step is None:
            return None
        if step.id not in short:
            short[step.id] = replace(
                step,
                steps=min(step.steps, optimizer_steps) if step.kind.trains else step.steps,
                seed=0,
                data_seed=0,
                teacher=cut(step.teacher),
                other_teachers=tuple(found for each in step.other_teachers if (found := cut(each))),
                init=cut(step.init),
                start=None,
                logits=None,
                texts=None,
                features=(),
            )
        return short[step.id]

    runs = [found for step in dag.steps if step.kind.is_run and (found := cut(step))]
    needed = [found for run in runs for found in (*run.teachers, run)]
    steps = with_caches(with_preludes(needed))
    return Dag(steps=tuple(steps), asked=len(runs))


def run_smoke(
    resolved: Resolved, dag: Dag, store: Store, where: Where, watch: Watch
) -> tuple[State, list[str]]:
    """Run the smoke run of a sweep in a store of its own; return where it stands, and what it took.

    Args:
        resolved: The sweep.
        dag: Its steps.
        store: An empty store.
        where: Place where the sweep would run.
        watch: Called about twice a second with where things stand.

    Raises:
        InputError: As the sweep itself would.
    """
    short = smoke_dag(dag)
    state = run_sweep(resolved, short, store, where, watch, time.monotonic())
    return state, list(smoke_report(dag, short, store.results(step.id for step in short.steps)))


def smoke_report(dag: Dag, short: Dag, results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each step of a smoke run that is done, and what the sweep would take at its pace.

    Start-up, evaluation and compiling are left out of the pace, and waiting for devices too.
    """
    total = 0.0
    for step in short.steps:
        if not (found := results.get(step.id)):
            continue
        if not step.kind.trains:
            yield f"{step.label}: done in {sum(found['seconds'].values()):.1f} s"
            continue
        pace = found["seconds"]["train"] / step.steps
        alike = [other for other in dag.steps if _alike(other, step)]
        whole = sum(other.tokens_to_train / other.training.batch_tokens for other in alike)
        total += pace * whole
        yield (
            f"{step.label}: {pace:.3g} s an optimizer step, {duration(pace * whole)} for the "
            f"{whole:,.0f} steps of its shape"
        )
    done = f"{len(results)} of {len(short.steps)} steps done"
    yield f"{done}; training takes {duration(total)} one after the other"


def _alike(step: Step, short: Step) -> bool:
    """Return True if ``step`` has the shape, the method and the teacher's shape of a step of a smoke run."""
    teachers = [each.teacher.shape if each.teacher else None for each in (step, short)]
    same = (step.shape, step.method, step.trainer) == (short.shape, short.method, short.trainer)
    return same and teachers[0] == teachers[1] and step.kind.trains
