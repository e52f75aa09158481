"""Specs that would take for ever are refused at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from scaling.errors import InputError
from sweeps.spec.parsing import yaml_text
from sweeps.spec.parsing.yaml_text import read_yaml
from sweeps.spec.spec import load_sweep, parse_sweep, presets

MERGES = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12))]
)
ALIASES = "\n".join(
    ["b0: &b0 [1, 2]", *(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 12))]
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MERGES, "with its aliases expanded it has more than 1,000,000 values; at most 100,000 are accepted"),
        (ALIASES, "with its aliases expanded it has more than 1,000,000 values"),
        ("a: &a [*a]", "with its aliases expanded it has more than 1,000,000 values"),
        ("# " + "x" * 2_000_000, "2,000,002 characters; at most 1,000,000 are accepted"),
        ("[" * 200_000, "not valid YAML"),
    ],
)
def test_what_aliases_blow_up_is_refused_at_once(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    started = time.process_time()
    with pytest.raises(InputError, match=message):
        load_sweep(path)
    assert time.process_time() - started < 5  # an hour and more, once


def test_merges_and_aliases_of_use_are_read() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]"
    assert read_yaml(text, "spec") == {
        "a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": [{"x": 1, "y": 2}] * 2,
    }  # fmt: skip
    for name, preset in presets().items():
        assert len(preset) < yaml_text.MAX_CHARACTERS / 100, name


@pytest.mark.parametrize("field", ["supervised", "students", "seeds"])
def test_four_million_equal_cells_are_refused_at_once(field: str, small_spec: dict[str, Any]) -> None:
    many = {"params": ["3k"] * 2000, "tokens": ["32k"] * 2000}
    if field == "seeds":
        small_spec["supervised"] = [{"params": ["3k"], "tokens": ["32k"] * 2000, "seeds": [0] * 2000}]
    else:
        small_spec[field] = [many]
    started = time.process_time()
    with pytest.raises(InputError, match=r"(4|8),00\d,00\d runs asked for, .*at most 250,000: shorten the"):
        parse_sweep(small_spec)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("value", ["2020-99-99", "2020-02-30", "0x", "!!timestamp 2020-99-99", "[" * 2000])
def test_a_change_that_no_yaml_can_hold_is_a_sentence(value: str) -> None:
    with pytest.raises(InputError):
        load_sweep("quickstart", [f"training.peak_rate={value}"])
