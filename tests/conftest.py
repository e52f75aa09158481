"""Shared by all tests: no test sees the user's own cache, and Ray stays silent about itself.

Tests run side by side in three processes, as many of them wait. Those that kill and time processes of their own are
marked and run alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("DISTLAW_LOGICAL_GPUS", "1")  # machines of tests announce GPUs that they lack

ONE_RAY = "commands/test_end_to_end.py"
"""The one module with a Ray of its own that others may run beside: two on a machine would find each other."""
FIRST = (
    ("test_notebooks.py",),
    (ONE_RAY, "test_tuning.py", "test_counts.py"),
    (
        "test_own_parts.py",
        "test_docs_site.py",
        "test_compiler_check.py",
        "test_shared_prefixes.py",
        "test_resume.py",
    ),
)
"""Modules with the longest tests, for each process: those that begin with them end together."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no module without a test for the second part, which runs those alone (15 s less)."""
    second = config.option.markexpr == "not slow and alone" and collection_path.name.startswith("test_")
    if not second or collection_path.is_dir():
        return None
    text = collection_path.read_text(encoding="utf-8")
    return None if "mark.alone" in text or "mark.ray" in text else True


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Let tests with a Ray run alone; put the longest where xdist's equal parts for the processes begin."""
    for item in items:
        if item.get_closest_marker("ray") and not str(item.path).endswith(ONE_RAY):
            item.add_marker("alone")
    yield  # pytest leaves out what is not asked for
    longest = [[item for item in items if str(item.path).endswith(names)] for names in FIRST]
    others = iter([item for item in items if not any(item in part for part in longest)])
    ordered: list[pytest.Item] = []
    for number, part in enumerate(longest):
        size = (len(items) - len(ordered)) // (len(FIRST) - number)
        ordered += part + list(islice(others, max(0, size - len(part))))
    items[:] = [*ordered, *others]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("DISTLAW_CACHE", str(cache))
    return cache
