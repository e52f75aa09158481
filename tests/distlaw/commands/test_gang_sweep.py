"""``distlaw sweep run`` of a step that two processes train: faults are told in a line, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.alone]

TEXT = "\n\n".join(
    " ".join(f"on day {(7 * a + b * b) % 97} the king went up to city {(a * b) % 31}." for b in range(9))
    for a in range(300)
)
IN_PROCESS = re.compile(r"in process (\d+)")


def started(place: Path, tokens: str) -> subprocess.Popen[str]:
    """Start a sweep of one step, sharded over two GPUs that are numbers only."""
    spec = {
        "name": "gang",
        "corpus": {"source": "text.txt", "vocab": 300, "context": 32, "heldout": 0.1},
        "training": {"batch_tokens": 128, "warmup_tokens": 1600, "shard": True, "micro_batch_tokens": 32},
        "supervised": [{"params": ["3k"], "tokens": [tokens]}],
        "resources": [{"gpus": 2}],
    }
    (place / "text.txt").write_text(TEXT)
    (place / "spec.yaml").write_text(json.dumps(spec))
    given = {
        "CUDA_VISIBLE_DEVICES": "0,1", "DISTLAW_LOGICAL_GPUS": "1", "DISTLAW_CACHE": str(place / "cache"),
        "DISTLAW_GANG_TIMEOUT_SECONDS": "8", "DISTLAW_CHECKPOINT_SECONDS": "0.2", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "distlaw", "sweep", "run", "spec.yaml", "--store", "store"]
    return subprocess.Popen(
        [*command, "--executor", "process"], cwd=place, env=os.environ | given, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def awaited(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 200
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def processes(place: Path, attempt: int) -> list[int]:
    """Return the processes of an attempt that has written a checkpoint of its own."""
    if not list(place.glob(f"store/*/checkpoints/*-{attempt:04d}/manifest.json")):
        return []
    (log,) = place.glob(f"store/*/attempts/{attempt:04d}.log")
    return [int(pid) for pid in IN_PROCESS.findall(log.read_text())]


def test_a_gang_that_loses_a_process_is_retried_from_its_checkpoint(tmp_path: Path) -> None:
    """One process hangs, then one is killed, then a shard of the newest checkpoint is missing."""
    sweep = started(tmp_path, "64k")
    try:
        for attempt, fault in enumerate((signal.SIGSTOP, signal.SIGKILL), 1):
            _, second = awaited(lambda attempt=attempt: processes(tmp_path, attempt))
            os.kill(second, fault)
        newest = awaited(lambda: sorted(tmp_path.glob("store/*/checkpoints/*/manifest.json")))[-1]
        sorted(newest.parent.glob("*.safetensors"))[-1].unlink(missing_ok=True)
        printed, _ = sweep.communicate(timeout=400)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, printed
    assert "Traceback" not in printed
    assert "1 of 1 steps done (1 now) in store" in printed
    assert printed.count("tried again in") == 2
    (log,) = tmp_path.glob("store/*/attempts/0003.log")
    assert "00001.safetensors: missing; the one before is used" in log.read_text()
    (result,) = tmp_path.glob("store/*/result.json")
    assert json.loads(result.read_text())["layout"]["processes"] == 2
