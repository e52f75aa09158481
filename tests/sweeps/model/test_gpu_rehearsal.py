"""What ``make gpu`` runs on a first GPU, without one: a sentence, or all parts with tiny sizes."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
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


def test_a_part_that_is_stopped_keeps_its_results_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(MAIN.parent), *sys.path])
    main = importlib.import_module("main")
    file, log = tmp_path / "part.json", tmp_path / "part.log"
    started = (
        "import pathlib, subprocess, sys, time; "
        f"sleeper = subprocess.Popen(['sleep', '60']); pathlib.Path({str(file)!r}).write_text(str(sleeper.pid)); "
        "time.sleep(60)"
    )
    assert (
        main._stopped_or_failed([sys.executable, "-c", started], log, 8.0)
        == "stopped after 8 s; see part.log"
    )
    until = time.monotonic() + 10
    while runs(int(file.read_text())):
        assert time.monotonic() < until, "the part's own child is still there"
    failed = [sys.executable, "-c", "raise SystemExit('no such kernel')"]
    assert main._stopped_or_failed(failed, log, 60.0) == "no such kernel"
    page = importlib.import_module("page").page
    part = {
        "title": "Loops",
        "seconds": 3.0,
        "limit": 3.0,
        "error": "stopped",
        "result": {"30M": {"ours": 1.5}},
    }
    text = page({"device": "none", "torch": "2", "date": "today", "parts": {"loops": part}})
    assert "Failed: stopped" in text
    assert "1.5" in text


def runs(process: int) -> bool:
    """True if a process is there and has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


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
