"""Shared by all tests: no test sees the user's own cache, and Ray stays silent about itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("DISTLAW_CACHE", str(cache))
    return cache
