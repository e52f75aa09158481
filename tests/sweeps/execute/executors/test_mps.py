"""Processes that share a GPU use NVIDIA's MPS where its daemon can be started and CUDA works through it.

The daemon is a script that notes how it was called; nothing here has a GPU.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.execute.executors import mps
from sweeps.execute.executors.mps import sharing_environment


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the daemon noted."""
    noted, script = tmp_path / "noted", tmp_path / "bin" / mps.CONTROL
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\necho "$@ $CUDA_MPS_PIPE_DIRECTORY ${{CUDA_VISIBLE_DEVICES-all}}" >> {noted}\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(mps, "USUAL_FOLDER", tmp_path / "nobody-s")
    monkeypatch.setattr(mps, "CHECK", "import os; assert os.environ['CUDA_MPS_LOG_DIRECTORY']")
    mps._daemon.cache_clear()
    yield noted
    mps._daemon.cache_clear()


def test_shares_of_a_gpu_run_through_the_daemon_and_whole_ones_do_not(daemon: Path) -> None:
    assert sharing_environment(1.0) == sharing_environment(0.0) == {}
    assert not daemon.exists()
    found = sharing_environment(0.25)
    assert sharing_environment(0.5) == found
    folder = Path(found["CUDA_MPS_PIPE_DIRECTORY"])
    assert folder.is_dir()
    assert set(found) == set(mps.FOLDERS)
    assert daemon.read_text() == f"-d {folder} all\n"  # once, for all GPUs


def test_mps_that_does_not_work_is_not_used(daemon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mps, "CHECK", "raise SystemExit(1)")  # the real one: there is no CUDA here
    assert sharing_environment(0.25) == {}
    assert daemon.exists()


@pytest.mark.parametrize("name", ["DISTLAW_MPS", "CUDA_MPS_PIPE_DIRECTORY"])
def test_mps_is_left_alone_on_request_and_where_somebody_runs_it(
    daemon: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "0")
    assert sharing_environment(0.25) == {}
    assert not daemon.exists()
