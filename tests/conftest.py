"""Shared by all tests: no test sees the user's own cache, and Ray stays silent about itself.

Tests run side by side in two processes. Those that start processes of their own, kill and time them run alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MPLBACKEND", "agg")

ALONE = ("sweeps/execute", "sweeps/external", "sweeps/store", "sweeps/watch")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs alone."""
    tests = Path(__file__).parent
    for item in items:
        timed = any(item.path.is_relative_to(tests / room) for room in ALONE)
        if timed or item.get_closest_marker("ray"):
            item.add_marker("alone")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("DISTLAW_CACHE", str(cache))
    return cache
