"""Shared by all tests: no test sees the user's own cache, and Ray stays silent about itself.

Tests run side by side in two processes. Those that start processes of their own, kill and time them run alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("DISTLAW_LOGICAL_GPUS", "1")  # machines of tests announce GPUs that they lack

ALONE = ("sweeps/execute", "sweeps/store")
"""Rooms whose tests kill and time processes."""
BESIDE = (
    *("executors/test_gpus.py", "executors/test_job_placement.py", "executors/test_slurm.py"),
    "executors/test_mps.py",
    *("test_cache_gang.py", "test_simulated_cluster.py", "test_teacher_sharing.py", "test_trackers.py"),
    *("test_tuning.py", "test_checkpoint_interval.py", "test_scheduler.py", "test_store.py"),
    *("test_requests.py", "test_sharded_checkpoints.py", "test_store_of_0_1_0.py", "test_object_store.py"),
    *("test_broken_places.py", "test_nfs.py", "test_time_limit.py"),
)
"""Modules in those rooms that do not, or whose limits leave room for another process on the machine."""
ONE_RAY = "commands/test_end_to_end.py"
"""The one module with a Ray of its own that others may run beside: two on a machine would find each other."""
FIRST = (
    *("test_notebooks.py", "test_own_parts.py", ONE_RAY, "test_docs_site.py", "test_counts.py"),
    *("test_shared_prefixes.py", "test_compiler_check.py", "test_tuning.py", "test_resume.py"),
)
"""Modules with the longest tests: two processes that begin with them end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs alone, and put the longest first."""
    tests = Path(__file__).parent
    for item in items:
        path = str(item.path)
        timed = any(item.path.is_relative_to(tests / room) for room in ALONE) and not path.endswith(BESIDE)
        if timed or (item.get_closest_marker("ray") and not path.endswith(ONE_RAY)):
            item.add_marker("alone")
    items.sort(key=lambda item: not str(item.path).endswith(FIRST))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("DISTLAW_CACHE", str(cache))
    return cache
