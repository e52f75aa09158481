"""A mixed sweep from spec to plan: supervised runs and teachers by the Hugging Face Trainer, students by ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

import fits
import sweeps
from scaling import Question, plan

TRAINERS = Path(sweeps.__file__).parent / "trainers"


@pytest.mark.slow
def test_a_mixed_sweep_is_fitted_and_plans(tmp_path: Path) -> None:
    spec = yaml.safe_load((TRAINERS / "mixed.yaml").read_text())
    for role in ("supervised", "teachers"):
        spec["trainer"][role] |= {"command": [sys.executable, str(TRAINERS / "hf_trainer.py")]}
    spec["supervised"][0]["tokens"] = spec["students"][0]["tokens"] = [131072, 262144]
    spec["teachers"][0]["tokens"] = [131072, 262144]
    sweep = sweeps.load(spec)
    by_command = [step for step in sweep.dag.steps if step.trainer]
    assert {step.kind for step in by_command} == {"pretrain"}
    assert len(by_command) == 6  # the teachers are among them
    state = sweep.run(tmp_path / "store", executor="process", cores=2)
    assert state.complete, state
    table = sweeps.results(tmp_path / "store")
    assert list(table["kind"].value_counts()) == [12, 6]
    assert "loss_on" not in table  # all losses are measured on one text
    assert table["setting"].nunique() == 1
    table.to_csv(tmp_path / "runs.csv", index=False)
    found = fits.fit(fits.read_runs(tmp_path / "runs.csv"))
    answer = plan(Question(student_params=1e4, budget=1e11), found.calibration)
    assert answer.headline
