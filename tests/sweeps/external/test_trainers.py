"""Trainers that ship, really run: Hugging Face Trainer, plain PyTorch, a shell script; and what becomes of models."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

import sweeps
from sweeps.store.store import Store

TRAINERS = Path(sweeps.__file__).parent / "trainers"
CPU = json.dumps({"use_cpu": True, "disable_tqdm": True}).replace("{", "{{").replace("}", "}}")
HF = {
    "command": [sys.executable, str(TRAINERS / "hf_trainer.py")],
    "version": "1",
    "model": "{out}/final",
    "env": {"HF_ARGUMENTS": CPU},
}
TORCH = {"command": [sys.executable, str(TRAINERS / "torch_script.py")], "version": "1"}
NUMBER = {"command": ["sh", str(TRAINERS / "number.sh"), "{params}", "{tokens}", "{out}"], "version": "1"}


@pytest.fixture
def spec(text_file: Path) -> dict[str, Any]:
    """A teacher of the HF Trainer, students by ours and in plain PyTorch, and a number from a shell script."""
    grid = {"params": ["4184"], "tokens": ["32k"]}
    return {
        "name": "trainers",
        "corpus": {"source": str(text_file), "vocab": 300, "context": 32, "heldout": 0.1},
        "training": {"batch_tokens": 64, "warmup_tokens": 1600},
        "supervised": [{**grid, "trainer": NUMBER}, {**grid, "trainer": TORCH}],
        "teachers": [{**grid, "trainer": HF}],
        "students": [grid],
        "hardware": {"name": "a100"},  # no probe of this machine
        "resources": [{"gpus": 0}],
    }


def test_trainers_that_ship(spec: dict[str, Any], tmp_path: Path) -> None:
    loaded, place = sweeps.load(spec), tmp_path / "store"
    state = loaded.run(place, executor="inline")
    assert state.complete, state
    table = sweeps.results(place).set_index("run")
    number, plain, teacher, ours = (table.loc[step.id] for step in loaded.dag.steps)
    asked = loaded.dag.steps[0].shape.params
    assert number["loss_on"] == "a formula"
    assert number["loss"] == pytest.approx(1.4 + 9 / asked**0.2 + 3000 / 32000**0.65, abs=1e-4)
    for row in (teacher, ours):  # measured on our held-out text
        assert math.isnan(row["loss_on"])
        assert row["bits_per_byte"] > 0
        assert row["loss_se"] > 0
    assert teacher["params"] == asked
    assert ours["teacher_loss"] == teacher["loss"]
    assert 0 < abs(plain["params"] / asked - 1) < 0.1
    assert max(teacher["loss"], ours["loss"], plain["loss"]) < 0.75 * math.log(300)  # all of them learn

    store, step = Store(place), loaded.dag.steps[2].id
    result = store.result(step)
    assert result is not None
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(place / step / result["model"])
    assert not (place / step / "checkpoints").exists()
    assert not list((place / step).glob("command-*/out/**/*.safetensors"))
    assert list((place / step).glob("command-*/out/trainer_state.json"))

    # a student of a teacher whose weights were changed since
    weights = place / step / result["model"] / "model.safetensors"
    save_file({name: values * 1.5 for name, values in load_file(weights).items()}, weights, {"format": "pt"})
    spec["students"], spec["supervised"] = [{"params": ["4184"], "tokens": ["40k"]}], []
    state = sweeps.load(spec).run(place, executor="inline")
    (reason,) = state.failed.values()
    assert "damaged; to train it again, delete" in reason


def test_a_student_of_ours_needs_the_model_of_its_teacher(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["teachers"][0]["trainer"] = NUMBER
    spec["supervised"] = []
    (reason,) = sweeps.load(spec).run(tmp_path / "store", executor="inline").failed.values()
    assert "its command left a loss and no model" in reason
