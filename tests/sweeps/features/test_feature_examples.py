"""Examples in docstrings of the room, and the sample of its page."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULES = sorted((ROOT / "sweeps" / "features").glob("[a-z]*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_examples_show_what_is_true(path: Path) -> None:
    failed, _ = doctest.testmod(importlib.import_module(f"sweeps.features.{path.stem}"))
    assert not failed


def test_the_sample_balances_its_teachers() -> None:
    path = ROOT / "docs" / "samples" / "feature_targets.py"
    spec = importlib.util.spec_from_file_location("feature_targets", path)
    assert spec is not None
    assert spec.loader is not None
    sample = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sample)
    found = sample.example()
    assert found["phi-s"]["balance"] < 1.1 < found["none"]["balance"]
    assert found["phi-s"]["worst"] < 0.85 * found["none"]["worst"]
