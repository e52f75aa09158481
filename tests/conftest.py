"""Shared by all tests: no test sees the user's own cache, and Ray stays silent about itself.

Tests run side by side in two processes. Those that start processes of their own, kill and time them run alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MPLBACKEND", "agg")

ALONE = ("sweeps/execute", "sweeps/external", "sweeps/store")
"""Rooms whose tests kill and time processes."""
BESIDE = (
    *("executors/test_gpus.py", "executors/test_job_placement.py", "executors/test_slurm.py"),
    *("test_cache_gang.py", "test_simulated_cluster.py", "test_teacher_sharing.py", "test_trackers.py"),
    *("test_tuning.py", "test_handover.py", "test_places.py", "test_checkpoint_interval.py"),
    *("test_requests.py", "test_sharded_checkpoints.py", "test_store_of_0_1_0.py"),
)
"""Modules in those rooms that do not."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs alone."""
    tests = Path(__file__).parent
    for item in items:
        timed = any(item.path.is_relative_to(tests / room) for room in ALONE)
        timed &= not str(item.path).endswith(BESIDE)
        if timed or item.get_closest_marker("ray"):
            item.add_marker("alone")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("DISTLAW_CACHE", str(cache))
    return cache
