"""Warm-up-stable-decay: runs of one size share a prefix, and nothing but the work changes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sweeps import results
from sweeps.dag.expand import Dag
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.state import State
from sweeps.execute.steps.provenance import record_sweep
from sweeps.model.optimizer import learning_rate
from sweeps.resolve import dag_of
from sweeps.spec.spec import Training, parse_sweep
from sweeps.store.records import THROUGHPUT_COLUMNS
from sweeps.store.store import Store

RULES = Training(batch_tokens=64, warmup_tokens=1600, schedule="wsd", decay_fraction=0.2)


@pytest.fixture
def spec(small_spec: dict[str, Any]) -> dict[str, Any]:
    """Two sizes at three lengths, not in order, and a student at two."""
    small_spec["training"] |= {"schedule": "wsd"}
    small_spec["supervised"] = [{"params": ["3k", "7k"], "tokens": ["64k", "32k", "48k"]}]
    small_spec["teachers"] = [{"params": ["7k"], "tokens": ["32k"]}]
    return small_spec


def test_the_rate_is_constant_until_it_decays() -> None:
    rates = [learning_rate(step, 1000, RULES) for step in range(1000)]
    begin = RULES.stable_steps(1000)
    assert begin == 800
    assert set(rates[RULES.warmup_steps : begin + 1]) == {RULES.learning_rate}
    assert all(later < earlier for earlier, later in pairwise(rates[begin:]))
    assert rates[-1] == pytest.approx(RULES.learning_rate * (1 / 200), rel=0.25)
    longer = [learning_rate(step, 5000, RULES) for step in range(begin)]
    assert longer == rates[:begin]  # what makes a shared prefix


def test_a_family_has_one_shared_prefix(spec: dict[str, Any]) -> None:
    apart, shared = dag_of(parse_sweep(spec | {"share_prefixes": False})), dag_of(parse_sweep(spec))
    runs = [step for step in shared.steps if step.kind != "trunk"]
    assert {step.id for step in runs} == {step.id for step in apart.steps}
    assert len(shared.steps) - len(runs) == 2 + 2 + 1  # two prefixes a size, one for the student
    trained = [step.tokens_to_train for step in shared.steps if step.shape.params < 5e3 and not step.teacher]
    steps = [500, 750, 1000]
    decays = sum(round(0.2 * n) for n in steps)
    assert sum(trained) == (800 + decays) * 64  # the longest prefix once, and every decay
    assert shared.flops < 0.75 * apart.flops
    assert apart.flops == pytest.approx(sum(step.flops for step in runs))


def test_where_the_length_matters_from_the_first_step_no_prefix_is_shared(spec: dict[str, Any]) -> None:
    students = [{"params": ["3k"], "tokens": ["32k", "64k"]}]
    dag = dag_of(parse_sweep(spec | {"students": students, "methods": [{}, {"taid": {}}]}))
    moving = [step for step in dag.steps if step.method and step.method.taid]
    assert len(moving) == 2
    assert not any(step.kind == "trunk" or step.start for step in moving)
    assert sum(step.kind == "trunk" for step in dag.steps if step.teacher) == 1


def test_every_step_comes_after_what_it_needs(spec: dict[str, Any]) -> None:
    seen: set[str] = set()
    for step in dag_of(parse_sweep(spec)).steps:
        assert {need.id for need in step.needs} <= seen
        seen.add(step.id)


def test_branches_end_in_the_bits_of_separate_runs(
    spec: dict[str, Any], tmp_path: Path, own_cache: Path
) -> None:
    spec["supervised"] = [{"params": ["3k"], "tokens": ["64k", "32k", "48k"]}]
    spec["teachers"] = [{"params": ["3k"], "tokens": ["32k"]}]
    tables = []
    for sharing in (True, False):
        sweep = parse_sweep(spec | {"share_prefixes": sharing})
        dag, store = dag_of(sweep), Store(tmp_path / str(sharing))
        store.create()
        record_sweep(store, sweep, dag)
        assert run(dag, store, InlineExecutor(store), lambda step: step.flops, lambda _: None).complete
        tables.append(results(store.root).drop(columns=["seconds", *THROUGHPUT_COLUMNS], errors="ignore"))
    assert len(tables[0]) == 5
    assert tables[0].equals(tables[1])


def test_a_failed_shared_prefix_blocks_all_that_grows_from_it(spec: dict[str, Any]) -> None:
    dag: Dag = dag_of(parse_sweep(spec))
    first = next(step for step in dag.steps if step.kind == "trunk" and step.shape.params > 5e3)
    state = State(dag=dag, cost=lambda step: step.flops, found=set())
    state.failed[first.id] = "it broke"
    while ready := state.ready():
        state.finish(ready[0].id)
    # three runs and a shared prefix of that size, and the students of its shortest run with their own prefix
    assert len(state.blocked) == 4 + 3
    assert len(state.done) + 1 + len(state.blocked) == len(dag.steps)
