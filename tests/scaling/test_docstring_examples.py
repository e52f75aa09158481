"""The examples in the docstrings of scaling show what is true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import scaling

ROOT = Path(scaling.__file__).parent
MODULES = sorted(
    ".".join(("scaling", *path.relative_to(ROOT).with_suffix("").parts))
    for path in ROOT.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed
