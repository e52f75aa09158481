"""What a sweep will take, and that the estimate adds up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.dag.cost import (
    STARTUP_SECONDS,
    Throughput,
    disk,
    estimate,
    measured_throughput,
    memory,
    seconds_on,
)
from sweeps.dag.steps import Dag, expand
from sweeps.specs.spec import parse_sweep

LINEAR = Throughput([1e4, 1e5], [3e-6, 3e-5], [1e-6, 1e-5], [1e-5, 1e-4], [2e-6, 2e-5])
"""A machine of 1e10 FLOP/s."""


@pytest.fixture
def dag(small_spec: dict[str, Any]) -> Dag:
    return expand(parse_sweep(small_spec))


def test_seconds_are_flops_over_speed(dag: Dag) -> None:
    for step in dag.steps:
        assert LINEAR.seconds(step) == pytest.approx(step.flops / 1e10, rel=1e-9)
        longer = replace(LINEAR, heldout_tokens=1000).seconds(step) - LINEAR.seconds(step)
        assert longer == pytest.approx(1000 * step.shape.forward_flops / 1e10)


def test_writing_takes_its_time_and_texts_their_place(small_spec: dict[str, Any]) -> None:
    """On a machine that is ten times slower at writing, and twice at writing much."""
    methods = ["seqkd", "gkd", "minillm", "f-distill-js"]
    dag = expand(parse_sweep(small_spec | {"methods": methods}))
    kinds = set()
    for step in dag.steps:
        own = step.flops_by_part()
        before = {"teacher_writing"} if step.texts else set()
        slow = (2 if step.generate else 10) * sum(
            own[part] for part in {"writing", "teacher_writing"} - before
        )
        expected = own["training"] + own["teacher_reading"] + slow
        assert LINEAR.seconds(step) == pytest.approx(expected / 1e10, rel=1e-9)
        kinds.add(step.kind)
    assert kinds == {"pretrain", "prelude", "generate", "distil"}
    assert disk(dag, 10**9) == pytest.approx(2 * 2 * 40e3, rel=0.01)  # teachers, bytes


def test_more_cores_help_until_the_longest_chain(dag: Dag) -> None:
    one, two, many = (estimate(dag, LINEAR.seconds, cores) for cores in (1, 2, 1000))
    assert one.wall_seconds - STARTUP_SECONDS == pytest.approx(one.device_seconds)
    assert two.wall_seconds - STARTUP_SECONDS == pytest.approx(one.device_seconds / 2)
    assert many.wall_seconds - STARTUP_SECONDS == pytest.approx(many.critical_path)
    chain = max(LINEAR.seconds(s) + LINEAR.seconds(s.teacher) for s in dag.steps if s.teacher)
    assert many.critical_path == pytest.approx(chain)


def test_what_is_left_can_lack_its_teachers(dag: Dag) -> None:
    students = replace(dag, steps=tuple(step for step in dag.steps if step.teacher))
    left = estimate(students, LINEAR.seconds, 2)
    assert left.critical_path == pytest.approx(max(map(LINEAR.seconds, students.steps)))
    assert estimate(replace(dag, steps=()), LINEAR.seconds, 2).wall_seconds == 0


def test_a_named_gpu_is_flops_over_speed_and_has_a_price(small_spec: dict[str, Any]) -> None:
    """Two a GPU at an hour each, for the price of the table or one's own."""
    rules = [{"gpus": 0.5}]
    hardware = {"name": "h100", "utilisation": 0.1, "dollars_per_hour": 3.0}
    sweep = parse_sweep(small_spec | {"hardware": hardware, "resources": rules})
    dag = expand(sweep)
    found = estimate(dag, seconds_on(sweep, None), 1, sweep)
    reached = 989.4e12 * 0.1
    assert found.device_seconds == pytest.approx(dag.flops / reached)
    assert found.bill.flops == pytest.approx(dag.flops)
    assert found.bill.gpu_hours == pytest.approx(dag.flops / reached / 3600)
    assert found.bill.dollars == pytest.approx(3 * found.bill.gpu_hours)
    assert found.critical_path > max(step.flops_to_spend for step in dag.steps) / reached * 2


def test_memory_grows_with_the_model_and_its_batch(dag: Dag) -> None:
    step = dag.steps[0]
    wide = replace(step, training=step.training.model_copy(update={"batch_tokens": 64_000}))
    assert memory(wide) > 5 * (memory(step) - 4e8)
    assert memory(next(s for s in dag.steps if s.teacher)) > memory(step)


def test_what_is_cached_takes_disk_and_spares_the_teacher(small_spec: dict[str, Any]) -> None:
    small_spec |= {"teachers": [{"params": ["7k"], "tokens": ["32k"]}]}
    online = expand(parse_sweep(small_spec))
    full, top = (
        expand(parse_sweep(small_spec | {"methods": [{"logits": how}]})) for how in ("cached", "top-k")
    )
    assert disk(online, 10**6) == 0
    assert disk(full, 10**6) == 40_000 * 300 * 2
    assert disk(full, 10_000) == 10_000 * 300 * 2  # no block twice
    assert disk(top, 10**6) == 40_000 * (33 * 2 + 32 * 2)
    student, cache = full.steps[-1], next(step for step in full.steps if step.cache)
    assert LINEAR.seconds(student) == pytest.approx(student.student_flops / 1e10)
    assert LINEAR.seconds(cache) == pytest.approx(student.teacher_flops / 1e10)


def test_the_probe_is_measured_once(dag: Dag, own_cache: Path) -> None:
    first = measured_throughput(dag.steps[0], 500)
    assert first.heldout_tokens == 500
    assert first.flops == sorted(first.flops)
    assert all(0 < a < b for a, b in zip(first.inference, first.training, strict=True))
    (file,) = (own_cache / "throughput").iterdir()
    assert json.loads(file.read_text())["training"] == first.training
    assert measured_throughput(dag.steps[0], 500) == first
