"""Estimates of time, memory and cost of a sweep."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from large_models import large

from scaling.costs.flops import ModelShape
from sweeps import load
from sweeps.dag.expand import Dag
from sweeps.estimate.cost import (
    STARTUP_SECONDS,
    Throughput,
    disk,
    estimate_sweep,
    measured_throughput,
    probed_batch,
    seconds_on,
)
from sweeps.estimate.memory.memory import concurrent_memory, step_memory
from sweeps.estimate.memory.placement import memory_on
from sweeps.estimate.probes import precision_probe
from sweeps.model.decoder import Decoder
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep

LINEAR = Throughput([1e4, 1e5], [3e-6, 3e-5], [1e-6, 1e-5], [1e-5, 1e-4], [2e-6, 2e-5])
"""A machine of 1e10 FLOP/s."""


@pytest.fixture
def dag(small_spec: dict[str, Any]) -> Dag:
    return dag_of(parse_sweep(small_spec))


def test_seconds_are_flops_over_speed(dag: Dag) -> None:
    for step in dag.steps:
        assert LINEAR.seconds(step) == pytest.approx(step.flops / 1e10, rel=1e-9)
        longer = replace(LINEAR, heldout_tokens=1000).seconds(step) - LINEAR.seconds(step)
        assert longer == pytest.approx(1000 * step.shape.forward_flops / 1e10)


def test_writing_takes_its_time_and_texts_their_place(small_spec: dict[str, Any]) -> None:
    """On a machine that is ten times slower at writing, and twice at writing much."""
    methods = ["seqkd", "gkd", "minillm", "f-distill-js"]
    dag = dag_of(parse_sweep(small_spec | {"methods": methods}))
    kinds = set()
    for step in dag.steps:
        own = step.flops_by_part()
        before = {"teacher_writing"} if step.texts else set()
        slow = (2 if step.kind == "generate" else 10) * sum(
            own[part] for part in {"writing", "teacher_writing"} - before
        )
        expected = own["training"] + own["teacher_reading"] + slow
        assert LINEAR.seconds(step) == pytest.approx(expected / 1e10, rel=1e-9)
        kinds.add(step.kind)
    assert kinds == {"pretrain", "prelude", "generate", "distil"}
    assert disk(dag) == pytest.approx(2 * 2 * 40e3, rel=0.01)  # teachers, bytes


def test_more_cores_help_until_the_longest_chain(dag: Dag) -> None:
    one, two, many = (estimate_sweep(dag, LINEAR.seconds, cores) for cores in (1, 2, 1000))
    assert one.wall_seconds - STARTUP_SECONDS == pytest.approx(one.device_seconds)
    assert two.wall_seconds - STARTUP_SECONDS == pytest.approx(one.device_seconds / 2)
    assert many.wall_seconds - STARTUP_SECONDS == pytest.approx(many.critical_path)
    chain = max(LINEAR.seconds(s) + LINEAR.seconds(s.teacher) for s in dag.steps if s.teacher)
    assert many.critical_path == pytest.approx(chain)


def test_what_is_left_can_lack_its_teachers(dag: Dag) -> None:
    students = replace(dag, steps=tuple(step for step in dag.steps if step.teacher))
    left = estimate_sweep(students, LINEAR.seconds, 2)
    assert left.critical_path == pytest.approx(max(map(LINEAR.seconds, students.steps)))
    assert estimate_sweep(replace(dag, steps=()), LINEAR.seconds, 2).wall_seconds == 0


def test_a_named_gpu_is_flops_over_speed_and_has_a_price(small_spec: dict[str, Any]) -> None:
    """Two a GPU at an hour each, for the price of the table or one's own."""
    rules = [{"gpus": 0.5}]
    hardware = {"name": "h100", "utilisation": 0.1, "dollars_per_hour": 3.0}
    sweep = parse_sweep(small_spec | {"hardware": hardware, "resources": rules})
    dag = dag_of(sweep)
    found = estimate_sweep(dag, seconds_on(sweep, None), 1, sweep)
    reached = 66.9e12 * 0.1  # runs are fp32, and TF32 is off
    assert found.device_seconds == pytest.approx(dag.flops / reached)
    assert found.bill.flops == pytest.approx(dag.flops)
    assert found.bill.gpu_hours == pytest.approx(dag.flops / reached / 3600)
    assert found.bill.dollars == pytest.approx(3 * found.bill.gpu_hours)
    assert found.critical_path > max(step.flops_to_spend for step in dag.steps) / reached * 2


def test_a_gpu_is_as_fast_as_the_precision_of_each_model(small_spec: dict[str, Any]) -> None:
    """The runs' own, and where a teacher is more precise than its students, its share of the FLOPs at its peak."""
    hardware = {"hardware": {"name": "h100", "utilisation": 0.4}, "resources": [{"gpus": 1}]}
    plain = parse_sweep(small_spec | hardware)
    fast = parse_sweep(small_spec | hardware | {"training": small_spec["training"] | {"precision": "bf16"}})
    slow_steps, fast_steps = dag_of(plain).steps, dag_of(fast).steps
    for slow, quick in zip(slow_steps, fast_steps, strict=True):
        assert seconds_on(plain, None)(slow) == pytest.approx(slow.flops_to_spend / (0.4 * 66.9e12))
        assert seconds_on(fast, None)(quick) == pytest.approx(quick.flops_to_spend / (0.4 * 989.4e12))
    student = next(step for step in fast_steps if step.teacher)
    teacher = next(step.teacher for step in slow_steps if step.teacher)
    mixed = replace(student, teacher=teacher)
    parts = mixed.flops_by_precision()
    assert parts == {"bf16": mixed.student_flops, "fp32": pytest.approx(mixed.teacher_flops)}
    expected = (parts["bf16"] / 989.4e12 + parts["fp32"] / 66.9e12) / 0.4
    assert seconds_on(fast, None)(mixed) == pytest.approx(expected)


def test_steps_that_wait_for_each_other_need_no_memory_at_once(small_spec: dict[str, Any]) -> None:
    sweep, dag = large(small_spec)
    alone = max(memory_on(step, sweep) for step in dag.steps)
    assert estimate_sweep(dag, lambda _: 1.0, 64, sweep).memory_bytes == alone  # teacher, then student
    mixed = [{"gpus": 0.5}, {"from_params": "5k", "gpus": 1}]  # one of a whole GPU shares it with none
    both = parse_sweep(small_spec | {"hardware": {"name": "h100"}, "resources": mixed})
    steps = dag_of(both).steps
    small = [memory_on(step, both) for step in steps if step.shape.params < 5e3 and not step.teacher]
    whole = [memory_on(step, both) for step in steps if step.shape.params > 5e3 or step.teacher]
    assert len(small) == 1
    peak = estimate_sweep(dag_of(both), lambda _: 1.0, 1, both).memory_bytes
    assert peak == max(*whole, *small)
    supervised = small_spec | {"supervised": [{"params": ["3k", "7k"], "tokens": ["32k"]}]}
    two = dag_of(parse_sweep(supervised))
    free = sorted((step_memory(step) for step in two.steps if not step.needs), reverse=True)
    assert estimate_sweep(two, LINEAR.seconds, 2).memory_bytes >= sum(free[:2])


def test_what_is_cached_takes_disk_and_spares_the_teacher(small_spec: dict[str, Any]) -> None:
    small_spec |= {"teachers": [{"params": ["7k"], "tokens": ["32k"]}]}
    online = dag_of(parse_sweep(small_spec))
    full, top = (
        dag_of(parse_sweep(small_spec | {"methods": [{"logits": how}]})) for how in ("cached", "top-k")
    )
    assert disk(online) == 0
    assert disk(full) == 40_000 * 300 * 2
    assert disk(top) == 40_000 * (33 * 2 + 32 * 2)
    sampled = dag_of(parse_sweep(small_spec | {"methods": [{"logits": "sampled", "draws": 12}]}))
    assert disk(sampled) == 40_000 * (8 + 12 * (4 + 9)) / 8  # counts of 12 in 4 bits, ids of 300 in 9
    student, cache = full.steps[-1], next(step for step in full.steps if step.kind == "cache")
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


def test_a_machine_is_measured_with_small_models_whatever_is_planned(
    small_spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the plan of a cluster's sweep trains billions of parameters where it is made."""
    _, dag = large(small_spec, contexts=512)
    built: list[ModelShape] = []

    def build(shape: ModelShape) -> Decoder:
        built.append(replace(shape, vocab=300))
        return Decoder(built[-1])

    monkeypatch.setattr("sweeps.model.decoder.Decoder", build)
    assert dag.example.shape.params > 6e9
    assert probed_batch(dag.example) == (256, 2048)
    found = precision_probe._measure(dag.example)
    assert found.params == built[0].params == pytest.approx(precision_probe.MAX_PROBE_PARAMS, rel=0.1)
    assert built[0].context == 256
    assert found.ratio > 0


def test_many_steps_behind_a_larger_one_may_need_more_than_it(dag: Dag) -> None:
    teacher = next(step.teacher for step in dag.steps if step.teacher)
    students = [step for step in dag.steps if step.teacher == teacher]
    assert len(students) == 2
    steps, quarter = [teacher, *students], [0.25] * 3
    assert concurrent_memory(steps, [5.0, 3.0, 4.0], quarter, 1.0) == 7.0
    assert concurrent_memory(steps, [8.0, 3.0, 4.0], quarter, 1.0) == 8.0
    assert concurrent_memory(steps, [5.0, 3.0, 4.0], [1.0] * 3, 1.0) == 5.0
    assert concurrent_memory([], [], [], 1.0) == 0.0


def test_small_steps_are_measured_as_they_are(dag: Dag) -> None:
    step = dag.example
    assert probed_batch(step) == (step.shape.context, step.training.batch_tokens)
    assert precision_probe._measured_shape(step) == step.shape


def test_what_is_computed_twice_takes_time_and_money_but_counts_no_flops(small_spec: dict[str, Any]) -> None:
    def planned(**training: Any) -> tuple[float, float, float, str]:
        rules = {"hardware": {"name": "h100"}, "training": small_spec["training"] | training}
        plan = load(small_spec | rules | {"resources": [{"gpus": 1}]}).plan(f"memory://{training}")
        return plan.whole.device_seconds, plan.whole.bill.dollars, plan.dag.flops, str(plan)

    seconds, dollars, flops, text = planned()
    more_seconds, more_dollars, same_flops, warned = planned(recompute=True, deterministic=True)
    dag = dag_of(parse_sweep(small_spec))
    blocks = sum(
        step.tokens_to_train * (step.shape.forward_flops - 2 * step.shape.width * 301)
        for step in dag.steps
        if step.kind.trains
    )
    assert (more_seconds - seconds) * 0.4 * 66.9e12 == pytest.approx(blocks)
    assert more_dollars / dollars == pytest.approx(more_seconds / seconds)
    assert same_flops == flops == dag.flops
    assert "recompute  7 steps whose blocks are computed twice" in warned
    assert "training.deterministic: its kernels are slower" in warned
    assert not any(word in text for word in ("recompute", "deterministic"))


def test_this_machine_takes_a_forward_pass_longer_for_what_is_computed_twice(dag: Dag) -> None:
    (step, *_) = dag.steps
    sweep = parse_sweep({"name": "a", "supervised": [{"params": ["3k"], "tokens": ["32k"]}]})
    twice = replace(step, training=step.training.model_copy(update={"recompute": True}))
    blocks = step.tokens_to_train * (step.shape.forward_flops - 2 * step.shape.width * 301)
    once, again = (seconds_on(sweep, LINEAR)(each) for each in (step, twice))
    assert again - once == pytest.approx(blocks / 1e10)
