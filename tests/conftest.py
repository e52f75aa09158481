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


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no module without a test for the second part, which runs those alone (20 s less)."""
    second = config.option.markexpr == "not slow and alone" and collection_path.name.startswith("test_")
    if not second or collection_path.is_dir() or _is_timed(collection_path):
        return None
    text = collection_path.read_text()
    return None if "mark.alone" in text or "mark.ray" in text else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs alone, and put the longest first."""
    for item in items:
        own = item.get_closest_marker("ray") and not str(item.path).endswith(ONE_RAY)
        if own or _is_timed(item.path):
            item.add_marker("alone")
    items.sort(key=lambda item: not str(item.path).endswith(FIRST))


def _is_timed(path: Path) -> bool:
    rooms = (Path(__file__).parent / room for room in ALONE)
    return any(path.is_relative_to(room) for room in rooms) and not str(path).endswith(BESIDE)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("DISTLAW_CACHE", str(cache))
    return cache
