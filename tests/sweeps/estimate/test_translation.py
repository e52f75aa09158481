"""Translation of compiled sizes in planned time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.api import LoadedSweep, load
from sweeps.dag.compile_choice import CompileChoice, CompilerCost, table_gain
from sweeps.dag.expand import Dag
from sweeps.estimate import plan as plan_module
from sweeps.estimate.cost import STARTUP_SECONDS, Throughput
from sweeps.estimate.plan import plan_sweep, step_seconds
from sweeps.estimate.probes import compiler_probe, translation
from sweeps.estimate.probes.compiler_probe import probed_step
from sweeps.estimate.probes.translation import first_needed
from sweeps.store.store import Store

LINEAR = Throughput([1e4, 1e5], [3e-6, 3e-5], [1e-6, 1e-5], [1e-5, 1e-4], [2e-6, 2e-5])
"""A machine of 1e10 FLOP/s."""
COST = CompilerCost(translation_seconds=10.0, measured=True)


@pytest.fixture
def compiled(small_spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> LoadedSweep:
    """The small spec, compiled, on a machine that was measured."""
    monkeypatch.setattr(plan_module, "measured_throughput", lambda *_: LINEAR)
    monkeypatch.setattr(plan_module, "measured_precision", lambda _: None)
    monkeypatch.setattr(translation, "remembered_cost", lambda _: COST)
    return load(small_spec | {"training": small_spec["training"] | {"compile": True}}, read_text=False)


def kinds(dag: Dag) -> set[tuple[int, bool]]:
    """Sizes that are trained, each alone and from a teacher, and those that teach."""
    return {(step.shape.params, step.teacher is not None) for step in dag.steps}


def test_each_function_is_translated_once_by_the_first_step_that_needs_it(compiled: LoadedSweep) -> None:
    dag = compiled.dag
    teachers = {step.teacher.shape.params for step in dag.steps if step.teacher}
    first = first_needed(dag.steps)
    assert sum(first.values()) == len(kinds(dag)) + len(teachers)
    assert not sum(first_needed(dag.steps, before=dag.steps).values())


def test_planned_time_has_it_and_what_compiling_saves(compiled: LoadedSweep) -> None:
    dag, store = compiled.dag, Store("memory://translation")
    found = plan_sweep(compiled.resolved, dag, store, 1)
    assert found.translation is not None
    assert found.translation.seconds == 10.0 * found.translation.functions > 0
    trained = sum(
        LINEAR.training_seconds(step) / table_gain(step.shape.params, "fp32")
        + LINEAR.seconds(step)
        - LINEAR.training_seconds(step)
        for step in dag.steps
    )
    assert found.whole.wall_seconds == pytest.approx(trained + found.translation.seconds + STARTUP_SECONDS)
    assert f"{found.translation.functions} functions are translated, about" in str(found)
    assert found.to_dict()["translation"]["functions"] == found.translation.functions


def test_what_was_done_before_is_not_translated_again(compiled: LoadedSweep) -> None:
    dag, size = compiled.dag, compiled.resolved.text.size
    fresh = step_seconds(compiled.resolved.sweep, dag, size)
    again = step_seconds(compiled.resolved.sweep, dag, size, before=dag.steps)
    assert sum(map(fresh, dag.steps)) - sum(map(again, dag.steps)) == pytest.approx(
        10.0 * sum(first_needed(dag.steps).values())
    )


def test_a_machine_that_is_too_busy_to_be_measured_is_not_one_without_a_compiler(
    compiled: LoadedSweep, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    """It goes by the table this time, and nothing is remembered; the other is told apart in the plan."""
    step = probed_step(compiled.dag)
    assert step is not None
    monkeypatch.setattr(compiler_probe, "MOST_SECONDS", 0)
    assert compiler_probe.compiler_cost(step) == CompilerCost()
    assert compiler_probe.remembered_cost(step) is None
    assert not list(own_cache.rglob("compiler-*.json"))
    choice = CompileChoice.of(3000, saves=90.0, costs=20.0)
    assert str(choice) == "3K saves 90 s for 20 s"
    without = CompileChoice.from_json(choice.without_compiler().as_json())
    assert str(without) == "3K (no compiler works here) would save 90 s for 20 s"
    old = {name: each for name, each in choice.as_json().items() if name != "possible"}
    assert CompileChoice.from_json(old) == choice
