"""The DAG of a spec: identity, sharing, cost."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from scaling.errors import InputError
from sweeps.dag.expand import Step, expand
from sweeps.dag.kind import StepKind
from sweeps.dag.resolved import Resolved, Text
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep


def test_equal_models_are_one_step(small_spec: dict[str, Any]) -> None:
    dag = dag_of(parse_sweep(small_spec))
    assert dag.asked == 8  # 2 supervised, 2 teachers, 2 students x 2 teachers
    assert len(dag.steps) == 7  # the 7k model on 32k tokens is both a run and a teacher
    assert [step.kind for step in dag.steps] == ["pretrain"] * 3 + ["distil"] * 4
    assert sum(dag.waiting_for.values()) == 4


def test_teachers_come_before_their_students(small_spec: dict[str, Any]) -> None:
    seen: set[str] = set()
    for step in dag_of(parse_sweep(small_spec)).steps:
        assert step.teacher is None or step.teacher.id in seen
        seen.add(step.id)


def test_an_id_is_what_changes_the_numbers(small_spec: dict[str, Any]) -> None:
    def ids(spec: dict[str, Any]) -> set[str]:
        return {step.id for step in dag_of(parse_sweep(spec)).steps}

    base = ids(small_spec)
    assert ids(small_spec | {"name": "other", "max_flops": "1e15"}) == base
    more = ids(small_spec | {"supervised": [{"params": ["3k", "7k", "13k"], "tokens": ["32k"]}]})
    assert more > base
    assert len(more - base) == 1  # only what is new
    assert not ids(small_spec | {"training": small_spec["training"] | {"learning_rate": 0.02}}) & base
    assert not ids(small_spec | {"corpus": small_spec["corpus"] | {"seed": 1}}) & base


def test_another_teacher_makes_another_student(small_spec: dict[str, Any]) -> None:
    students = [step for step in dag_of(parse_sweep(small_spec)).steps if step.teacher]
    assert len({step.id for step in students}) == 4
    assert len({step.tokens for step in students}) == 2


def test_seeds_and_data_order_are_apart(small_spec: dict[str, Any]) -> None:
    grid = {"params": ["3k"], "tokens": ["32k"], "seeds": [0, 1, 2]}
    small_spec["supervised"] = [grid, grid | {"data_seed": 7}]
    steps = dag_of(parse_sweep(small_spec)).steps[:6]
    assert [(step.seed, step.data_seed) for step in steps] == [(0, 0), (1, 1), (2, 2), (0, 7), (1, 7), (2, 7)]


def test_students_can_have_their_own_half_of_the_text(small_spec: dict[str, Any]) -> None:
    small_spec["corpus"] |= {"halves": True}
    dag = dag_of(parse_sweep(small_spec))
    assert all(step.half == ("second" if step.teacher else "first") for step in dag.steps)
    assert len(dag.steps) == 7


def test_steps_survive_json(small_spec: dict[str, Any]) -> None:
    for step in dag_of(parse_sweep(small_spec | {"methods": [{"cross_entropy": 0.3}]})).steps:
        again = Step.from_json(json.loads(json.dumps(step.as_json())))
        assert again == step
        assert again.id == step.id


def test_flops_are_the_shape_s_own(small_spec: dict[str, Any]) -> None:
    dag = dag_of(parse_sweep(small_spec))
    for step in dag.steps:
        own = 3 * step.shape.forward_flops * step.tokens
        logits = step.teacher.shape.forward_flops * step.tokens if step.teacher else 0
        assert step.flops == pytest.approx(own + logits, rel=1e-12)
    assert dag.flops == pytest.approx(sum(step.flops for step in dag.steps))


def test_isoflop_grids_spend_their_budget(small_spec: dict[str, Any]) -> None:
    small_spec["supervised"] = [{"params": ["3k", "7k", "13k"], "flops": ["1e10"]}]
    for step in dag_of(parse_sweep(small_spec)).steps[:3]:
        assert step.flops == pytest.approx(1e10, rel=1e-3)


def test_tokens_per_parameter(small_spec: dict[str, Any]) -> None:
    small_spec["supervised"] = [{"params": ["13k"], "tokens_per_param": [20]}]
    step = dag_of(parse_sweep(small_spec)).steps[0]
    assert step.tokens == pytest.approx(20 * step.shape.params, rel=1e-3)


def test_short_runs_and_small_models_are_refused(small_spec: dict[str, Any]) -> None:
    small_spec["supervised"] = [{"params": ["7k"], "tokens": ["10k"]}]
    with pytest.raises(
        InputError, match=r"supervised\[0\]: 7K parameters on 10K tokens are 156 optimizer steps"
    ):
        dag_of(parse_sweep(small_spec))
    small_spec["supervised"] = [{"params": [50], "tokens": ["32k"]}]
    with pytest.raises(
        InputError, match=r"supervised\[0\].params: 50 parameters is below the ladder's smallest"
    ):
        dag_of(parse_sweep(small_spec))


def test_students_larger_than_every_teacher_are_refused(small_spec: dict[str, Any]) -> None:
    small_spec["students"] = [{"params": ["13k"], "tokens": ["32k"]}]
    with pytest.raises(
        InputError, match=r"students\[0\].params: 13000 is larger than every teacher \(on the ladder"
    ):
        dag_of(parse_sweep(small_spec))
    assert len(dag_of(parse_sweep(small_spec | {"allow_weak_teachers": True})).steps) == 5


def test_warm_up_cannot_be_most_of_a_run(small_spec: dict[str, Any]) -> None:
    small_spec["training"] = {"batch_tokens": 64, "warmup_tokens": "17k"}
    with pytest.raises(
        InputError, match=r"training.warmup_tokens: warm-up takes 266 of the 500 steps of supervised"
    ):
        dag_of(parse_sweep(small_spec))
    small_spec["training"] = {"batch_tokens": 64}  # 50 steps if nothing is said
    assert dag_of(parse_sweep(small_spec)).steps[0].training.warmup_steps == 50


def test_absurd_sizes_are_refused_at_once(small_spec: dict[str, Any]) -> None:
    small_spec["supervised"] = [{"params": ["1e29"], "tokens": ["32k"]}]
    with pytest.raises(
        InputError, match=r"supervised\[0\].params: 1e\+29 parameters is above the ladder's largest"
    ):
        dag_of(parse_sweep(small_spec))


def test_a_plan_above_its_cap_is_refused(small_spec: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"caps.flops: the sweep needs .* above its cap of 1e\+06"):
        dag_of(parse_sweep(small_spec | {"max_flops": "1e6"}))


def test_one_cache_serves_all_that_follow_a_teacher_over_the_same_batches(small_spec: dict[str, Any]) -> None:
    small_spec["students"] = [
        {"params": ["3k", "5k"], "tokens": ["32k", "40k"]},
        {"params": ["3k"], "tokens": ["32k"], "seeds": [1]},
    ]
    small_spec["training"] |= {"schedule": "wsd"}
    methods = [
        {"logits": "cached"},
        {"logits": "cached", "divergence": "reverse-kl"},
        {"logits": "top-k"},
        {},
    ]
    dag = dag_of(parse_sweep(small_spec | {"methods": methods}))
    caches = [step for step in dag.steps if step.kind == "cache"]
    assert len(caches) == 2 * 2 * 2  # teachers, orders of the data, ways to keep
    done: set[str] = set()
    for step in dag.steps:
        assert {need.id for need in step.needs} <= done
        done.add(step.id)
        if step.method and step.kind != "cache" and step.method.logits != "online":
            assert step.logits in caches
            assert step.logits.tokens >= step.tokens
            assert step.logits.data_seed == step.data_seed
            assert step.flops_to_spend == step.shape.training_flops(step.tokens_to_train)
    assert {cache.tokens for cache in caches if cache.data_seed == 0} == {40_000}
    assert {cache.tokens for cache in caches if cache.data_seed == 1} == {32_000}
    apart = dag_of(parse_sweep(small_spec | {"methods": methods[:1], "students": small_spec["students"][:1]}))
    assert {step.id for step in apart.steps} < {step.id for step in dag.steps}


def test_a_student_is_not_its_cache(small_spec: dict[str, Any]) -> None:
    """A longer student elsewhere in the sweep makes a longer cache, and no other student."""
    spec = small_spec | {"methods": [{"logits": "cached"}]}
    short = dag_of(parse_sweep(spec | {"students": [{"params": ["3k"], "tokens": ["32k"]}]}))
    students = {step.id for step in short.steps if step.kind == "distil"}
    both = {step.id for step in dag_of(parse_sweep(spec)).steps}
    assert students < both
    assert not {step.id for step in short.steps if step.kind == "cache"} & both


def test_steps_follow_from_plain_data_without_reading_a_file() -> None:
    """``expand`` is a pure function: the text need not exist."""
    spec = {
        "name": "pure",
        "corpus": {"source": "/nowhere/text.txt", "vocab": 300, "context": 32},
        "supervised": [{"params": ["3k", "7k"], "tokens": ["512k"]}],
    }
    sweep = parse_sweep(spec)
    resolved = Resolved(spec=sweep, sweep=sweep, text=Text(corpus=sweep.corpus, fingerprint="f" * 16))
    first, second = (expand(resolved).steps for _ in range(2))
    assert [step.id for step in first] == [step.id for step in second]
    assert [step.kind for step in first] == [StepKind.PRETRAIN, StepKind.PRETRAIN]
    other = expand(replace(resolved, text=Text(corpus=sweep.corpus, fingerprint="e" * 16))).steps
    assert not {step.id for step in first} & {step.id for step in other}
