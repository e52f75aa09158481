"""A smoke run tries every shape, method and hand-over of a sweep in a few optimizer steps, and leaves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from distlaw.cli import app
from sweeps.dag.kind import StepKind
from sweeps.operations.smoke import OPTIMIZER_STEPS, smoke_dag, smoke_report
from sweeps.resolve import dag_of
from sweeps.spec.spec import load_sweep, parse_sweep


@pytest.fixture
def spec(small_spec: dict[str, Any], own_cache: Path) -> dict[str, Any]:
    """Two sizes at three lengths and two seeds, a shared prefix, and students that read cached logits."""
    small_spec["training"] |= {"schedule": "wsd"}
    small_spec["supervised"] = [{"params": ["3k", "7k"], "tokens": ["32k", "48k", "64k"], "seeds": [0, 1]}]
    small_spec["teachers"] = [{"params": ["7k"], "tokens": ["64k"]}]
    small_spec["students"] = [{"params": ["3k"], "tokens": ["32k", "64k"]}]
    small_spec["methods"] = [{"logits": "cached"}]
    return small_spec


def test_one_run_of_every_shape_is_cut_short(spec: dict[str, Any]) -> None:
    dag = dag_of(parse_sweep(spec))
    short = smoke_dag(dag)
    kinds = [step.kind for step in short.steps]
    assert kinds.count(StepKind.PRETRAIN) == 2
    assert kinds.count(StepKind.CACHE_LOGITS) == kinds.count(StepKind.DISTILL) == 1
    assert len(short.steps) == 4
    assert all(step.steps == OPTIMIZER_STEPS for step in short.steps)
    assert {step.shape for step in short.steps} == {step.shape for step in dag.steps}
    done: set[str] = set()
    for step in short.steps:  # each after what it needs
        assert {need.id for need in step.needs} <= done
        done.add(step.id)
    assert not done & {step.id for step in dag.steps}


@pytest.mark.parametrize("preset", ["quickstart", "permissive", "features", "unlearning"])
def test_every_preset_can_be_cut_short(preset: str) -> None:
    from sweeps.dag.expand import expand
    from sweeps.resolve import resolve

    dag = expand(resolve(load_sweep(preset), read_text=False))
    short = smoke_dag(dag)
    assert len(short.steps) < len(dag.steps)
    assert short.flops < 0.1 * dag.flops
    asked = {(step.shape, step.method) for step in dag.steps if step.kind.is_run}
    assert {(step.shape, step.method) for step in short.steps if step.kind.is_run} == asked


def test_the_command_says_what_the_sweep_would_take_and_leaves_nothing(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    command = ["sweep", "run", str(tmp_path / "spec.yaml"), "--store", str(tmp_path / "store"), "--smoke"]
    done = CliRunner().invoke(app, [*command, "--executor", "inline"])
    assert done.exit_code == 0, done.output
    assert "4 of 4 steps done" in done.output
    assert done.output.count("s an optimizer step") == 3
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["cache"]


def test_the_pace_counts_all_runs_of_a_shape(spec: dict[str, Any]) -> None:
    dag = dag_of(parse_sweep(spec))
    short = smoke_dag(dag)
    results = {step.id: {"seconds": {"train": 2.0, "evaluate": 9.0}} for step in short.steps}
    *lines, last = smoke_report(dag, short, results)
    trained = sum(step.tokens_to_train / step.training.batch_tokens for step in dag.steps)
    counted = sum(
        int(line.split(" for the ")[1].split()[0].replace(",", "")) for line in lines if "shape" in line
    )
    assert counted == trained
    assert f"{trained * 0.1 / 60:.1f} min" in last
