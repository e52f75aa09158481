"""What ``make gpu`` runs on a first GPU, without one: a sentence, or all parts with tiny sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

MAIN = Path(__file__).parents[3] / "benchmarks" / "gpu" / "main.py"
PARTS = ["tests", "agreement", "loops", "distillation", "memory", "checkpoints", "ladder"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and make gpu would use it")
def test_without_a_gpu_it_says_so_and_succeeds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(MAIN), "--out", str(tmp_path / "gpu")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("make gpu: no CUDA GPU here")
    assert not (tmp_path / "gpu").exists()


@pytest.mark.slow
def test_all_parts_run_in_a_rehearsal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(MAIN), "--rehearse", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert list(found) == PARTS
    assert {name: part["error"] for name, part in found.items() if part["error"]} == {}
    assert done.returncode == 0, done.stdout
    assert found["agreement"]["result"]["fp32"]["largest_difference"] < 1e-5
    assert all(rate > 0 for rate in rates(found["loops"]["result"]))
    assert f"## {found['ladder']['title']}" in (tmp_path / "gpu.md").read_text()


def rates(result: dict[str, dict[str, dict[str, float]]]) -> list[float]:
    """Tokens per second of all loops at all sizes."""
    return [loop["tokens_per_second"] for loops in result.values() for loop in loops.values()]
