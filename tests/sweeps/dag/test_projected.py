"""Projected losses: runs that end at their stable phase, and what the decay of a shorter run makes of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from fits.table.projection import DRIFT_SD, SHORT_SD
from fits.table.runs import validate
from scaling import InputError
from sweeps import results
from sweeps.dag.expand import Dag
from sweeps.dag.projected import projected_sd
from sweeps.dag.step import Step
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.steps.provenance import record_sweep
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store


@pytest.fixture
def spec(small_spec: dict[str, Any]) -> dict[str, Any]:
    """One size at three lengths, measured and projected; a student at two lengths, projected alone."""
    small_spec["training"] |= {"schedule": "wsd"}
    both = {"params": ["3k"], "tokens": ["64k", "32k", "48k"], "measure": ["decayed", "projected"]}
    small_spec["supervised"] = [both]
    small_spec["teachers"] = [{"params": ["7k"], "tokens": ["32k"]}]
    small_spec["students"] = [{"params": ["3k"], "tokens": ["32k", "64k"], "measure": "projected"}]
    return small_spec


def train(dag: Dag, store: Store, spec: Any) -> None:
    store.create()
    record_sweep(store, spec, dag)
    assert run(dag, store, InlineExecutor(store), lambda step: step.flops, lambda _: None).complete


def test_only_the_shortest_run_is_decayed(spec: dict[str, Any]) -> None:
    dag = dag_of(parse_sweep(spec))
    alone = parse_sweep(spec | {"supervised": [spec["supervised"][0] | {"measure": "projected"}]})
    projected = [step for step in dag.steps if step.early]
    assert [(step.tokens, step.early.tokens, step.kind) for step in projected if step.early] == [
        (48_000, 32_000, "pretrain"), (64_000, 32_000, "pretrain"), (64_000, 32_000, "distil"),
    ]  # fmt: skip
    for step in projected:
        assert step.early in step.needs
        assert step.ends == step.training.stable_steps(step.steps)
        assert step.early is not None
        assert step.early.start in [each for each in dag.steps if each.kind == "trunk"]
        assert Step.from_json(step.as_json()) == step
    # with a measured twin its prefix is there, and nothing is left to train
    assert [step.tokens_to_train for step in projected][:2] == [0, 0]
    small = [step for step in dag_of(alone).steps if step.shape.params < 5e3 and not step.teacher]
    stable = small[0].training.stable_steps
    assert sum(step.tokens_to_train for step in small) == 64 * (stable(1000) + 500 - stable(500))


def test_ids_of_measured_runs_do_not_depend_on_projected_ones(spec: dict[str, Any]) -> None:
    plain = spec | {
        name: [{key: value for key, value in grid.items() if key != "measure"} for grid in spec[name]]
        for name in ("supervised", "students")
    }
    before, after = dag_of(parse_sweep(plain)), dag_of(parse_sweep(spec))
    measured = {step.id for step in after.steps if not step.early and step.kind.is_run}
    assert measured == {step.id for step in before.steps if step.kind.is_run} - {
        step.id for step in before.steps if step.teacher and step.tokens == 64_000
    }
    assert len({step.id for step in after.steps}) == len(after.steps)


def test_projected_losses_stand_in_result_and_table_with_their_variance(
    spec: dict[str, Any], tmp_path: Path, own_cache: Path
) -> None:
    spec["supervised"][0]["tokens"] = ["32k", "40k"]
    spec["students"][0]["tokens"] = ["32k", "40k"]
    sweep = parse_sweep(spec)
    dag, store = dag_of(sweep), Store(tmp_path)
    train(dag, store, sweep)
    table = results(store.root)
    sd = table.set_index("run")["projected_sd"]
    for step in dag.steps:
        if not step.kind.is_run:
            continue
        found = store.result(step.id)
        assert found is not None
        if step.early is None:
            assert math.isnan(sd[step.id])
            assert "projected" not in found
            continue
        told = found["projected"]
        assert found["loss"] == pytest.approx(
            told["stable_loss"] * told["early_loss"] / told["early_stable_loss"], rel=1e-14
        )
        assert told["early_loss"] == store.result(step.early.id)["loss"]  # type: ignore[index]
        assert told["early_stable_loss"] > told["early_loss"]
        assert sd[step.id] == told["sd"] == projected_sd(step)
        drift, short = DRIFT_SD * math.sqrt(math.log(step.tokens / 32_000)), SHORT_SD * (512 / 500) ** 2
        assert told["sd"] == pytest.approx(math.hypot(drift, short))
        assert "model" not in found
    used = validate(table)
    twins = used[(used["kind"] == "supervised") & used["projected_sd"].notna()]
    assert set(twins["excluded"]) == {"projected, and the same run was measured"}
    students = used[used["kind"] == "distillation"]
    assert students["excluded"].tolist() == ["", ""]

    # a prefix whose checkpoint was deleted is trained again, to the same bits
    last = next(step for step in dag.steps if step.early and step.teacher)
    before = store.result(last.id)
    for step in dag.steps:
        store.remove_tree(step.id, "checkpoints")
    store.remove(last.id, "result.json")
    train(dag, store, sweep)
    again = store.result(last.id)
    assert before is not None
    assert again is not None
    assert again["projected"] == before["projected"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"schedule": "cosine"}}, r"supervised\[0\].measure: .* training.schedule: wsd; found cos"),
        ({"share_prefixes": False}, "set share_prefixes: true"),
        ({"supervised": [{"params": ["3k"], "tokens": ["32k"], "measure": "projected"}]}, "two lengths or more"),
        ({"teachers": [{"params": ["7k"], "tokens": ["32k", "64k"], "measure": "projected"}]}, "leave projected"),
        ({"methods": [{"taid": {}}]}, "share no prefix"),
        ({"supervised": [{"params": ["3k"], "tokens": ["32k"], "measure": "guessed"}]}, "measure"),
        ({"training": {"decay_fraction": 0.9}}, None),
        (
            {"supervised": [{"params": ["3k"], "tokens": ["32k", "64k"], "measure": "projected",
                             "trainer": {"command": ["true"], "version": "1"}}]},
            "column projected_sd",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_projected_is_refused(
    spec: dict[str, Any], change: dict[str, Any], message: str | None
) -> None:
    if "training" in change:
        change = {"training": spec["training"] | change["training"]}
    if message is None:
        change["training"] |= {"warmup_tokens": 16_000}
        message = "decays before it has warmed up"
    with pytest.raises(InputError, match=message):
        dag_of(parse_sweep(spec | change))
