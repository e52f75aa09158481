"""The examples of the functions that a notebook calls."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import sweeps
import sweeps.api
from scaling.errors import InputError


def test_examples_are_true() -> None:
    failed, tried = doctest.testmod(sweeps.api)
    assert tried
    assert not failed


def test_a_store_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a sweep store"):
        sweeps.status(tmp_path)


def test_changes_reach_the_spec() -> None:
    assert sweeps.load("quickstart", ["name=other"]).default_store == "runs/other"
