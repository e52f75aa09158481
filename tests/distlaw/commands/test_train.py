"""``distlaw train``: one run by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import sweeps
from distlaw.cli import app, main


@pytest.fixture
def spec(tmp_path: Path, own_cache: Path) -> Path:
    """One teacher, one student of two lengths, so a shared prefix too."""
    text = tmp_path / "text.txt"
    text.write_text(
        "\n\n".join(f"And it was day {day}, and the king spoke of day {day * 7 % 31}." for day in range(900))
    )
    path = tmp_path / "spec.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "one",
                "corpus": {"source": str(text), "vocab": 300, "context": 32, "heldout": 0.1},
                "training": {"batch_tokens": 64, "schedule": "wsd"},
                "teachers": [{"params": ["7k"], "tokens": ["32k"]}],
                "students": [{"params": ["3k"], "tokens": ["32k", "40k"]}],
            }
        )
    )
    return path


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_is_trained_after_what_it_needs_and_counts_in_the_sweep(spec: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    plan = json.loads(run("sweep", "plan", spec, "--store", store, "--json"))
    longest = max((s for s in plan["steps"] if s["kind"] == "distil"), key=lambda s: s["steps"])
    output = run("train", spec, longest["id"][:6], "--store", store, "--tracker", "tensorboard")
    lines = output.strip().splitlines()
    assert [line.split(" ")[0] for line in lines if ": done in" in line] == ["pretrain", "shared", "distil"]
    table = sweeps.results(str(store))
    assert sorted(table["kind"]) == ["distillation", "supervised"]
    student = table[table["kind"] == "distillation"].iloc[0]
    assert f"held-out loss {student['loss']:.4f} ± {student['loss_se']:.4f} nats/token" in lines[-1]
    again = run("train", spec, longest["id"][:6], "--store", store)
    assert again.count("done already") == 3
    assert list((store / "tensorboard").glob("*/events.out.tfevents.*"))


def test_what_to_train_must_be_clear(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, message in (
        ((), "STEP: give one of these:"),
        (("nothing",), "STEP: 'nothing' names none of these:"),
        (("--tracker", "abacus"), "tensorboard, wandb, mlflow, not 'abacus'"),
    ):
        step = () if not words or words[0] != "--tracker" else (first_id(spec),)
        monkeypatch.setattr(
            "sys.argv", ["distlaw", "train", str(spec), *step, *words, "--store", str(tmp_path / "s")]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def first_id(spec: Path) -> str:
    return str(json.loads(run("sweep", "plan", spec, "--json"))["steps"][0]["id"])
