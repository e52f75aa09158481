"""Steps without a rule have the share, or the number of GPUs, that their memory needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from large_models import large

from sweeps.dag.step import Step
from sweeps.estimate.memory.layout import DeviceKind
from sweeps.estimate.memory.memory import step_memory
from sweeps.estimate.memory.placement import misfits, place, planned_resources, resources_on
from sweeps.resolve import dag_of
from sweeps.spec.resources import GPU_SHARE, Resources
from sweeps.spec.spec import parse_sweep

USUAL = Resources(gpus=GPU_SHARE)


def gpu_of(memory: float) -> DeviceKind:
    return DeviceKind(gpu=True, memory=memory, name="gpu")


@pytest.fixture
def small(small_spec: dict[str, Any]) -> Step:
    return dag_of(parse_sweep(small_spec)).steps[0]


def test_a_step_has_the_least_share_that_it_fits(small: Step) -> None:
    needed = step_memory(small, gpu=True) / 0.9
    shares = {
        times: resources_on(gpu_of(needed * times), [small], [], USUAL).gpus for times in (4.1, 2.1, 1.1)
    }
    assert shares == {4.1: 0.25, 2.1: 0.5, 1.1: 1.0}
    assert resources_on(gpu_of(needed * 4.1), [small] * 4, [], USUAL).gpus == 1.0  # a cohort
    rule = Resources(gpus=0.125)
    assert resources_on(gpu_of(needed), [small], [rule], USUAL) is rule  # the spec's word
    assert resources_on(None, [small], [], USUAL) is USUAL
    assert resources_on(gpu_of(needed), [small], [], Resources()) == Resources()  # on cores


def test_a_large_model_has_as_many_gpus_as_would_do_and_a_plan_says_so(small_spec: dict[str, Any]) -> None:
    """An 8B model in mixed precision keeps 16 bytes a parameter."""
    sweep, dag = large(small_spec, contexts=8)
    largest = max(dag.steps, key=lambda step: step.shape.params)
    found = planned_resources(largest, sweep)
    assert found.gpus > 1
    assert found.gpus in (2, 4, 8)
    assert misfits(place(step, sweep) for step in dag.steps) == []
    spread = resources_on(gpu_of(80e9), [largest], [], USUAL, per_node=2)
    assert (spread.gpus, spread.nodes) == (2, found.gpus / 2)
    alone = replace(largest, training=largest.training.model_copy(update={"batch_tokens": 4096.0}))
    assert resources_on(gpu_of(80e9), [alone], [], USUAL).gpus == 1  # one block cannot be split
