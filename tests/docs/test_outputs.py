"""Outputs in README and docs equal what the commands print (``make outputs`` renews them)."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

SHOWN = "```console shown\n$ distlaw calibrations\n{}```\n"


def test_shown_outputs_are_what_commands_print(outputs: ModuleType, texts: list[Path]) -> None:
    found = [(path, *block) for path in texts for block in outputs.blocks(path.read_text(), outputs.SHOWN)]
    assert len(found) >= 3
    for path, commands, output in found:
        now = outputs.shortened(outputs.printed(commands), output)
        assert outputs.agree(output, now), f"{path}: run `make outputs`\n{commands}{now}"


def test_every_output_says_where_it_comes_from(outputs: ModuleType, texts: list[Path]) -> None:
    assert not {path.name: found for path in texts if (found := outputs.unmarked(path.read_text()))}


def test_the_readme_is_short_and_its_python_runs(outputs: ModuleType, command_pages: ModuleType) -> None:
    readme = (outputs.ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 250
    names: dict[str, object] = {}
    found = [block["body"] for block in outputs.BLOCK.finditer(readme) if block["info"] == "python"]
    assert len(found) >= 2
    for code in found:
        command_pages.run_python(code, names)


def test_links_lead_to_files(outputs: ModuleType, texts: list[Path]) -> None:
    links = [
        (path, link.partition("#")[0])
        for path in [*texts, outputs.ROOT / "CHANGELOG.md"]
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text())
        if not link.startswith(("http", "#"))
    ]
    assert len(links) > 50
    assert not [(path.name, link) for path, link in links if not (path.parent / link).exists()]


def test_modules_named_exist(outputs: ModuleType, texts: list[Path]) -> None:
    rooms = ("scaling", "fits", "sweeps", "distlaw", "tests", "benchmarks", "docs")
    files = {
        str(file.relative_to(outputs.ROOT)) for room in rooms for file in (outputs.ROOT / room).rglob("*.py")
    }
    named = {(path.name, name) for path in texts for name in re.findall(r"`([\w/]+\.py)`", path.read_text())}
    assert len(named) > 50
    assert not {each for each in named if not any(f"/{file}".endswith(f"/{each[1]}") for file in files)}


def test_an_output_without_a_mark_is_noticed(outputs: ModuleType) -> None:
    assert outputs.unmarked("```console\n$ distlaw plan\nDistil\n```\n") == ["$ distlaw plan\nDistil\n"]
    assert not outputs.unmarked("```console\n$ distlaw plan \\\n    --json\n$ distlaw fit runs.csv\n```\n")
    assert not outputs.unmarked(SHOWN.format("anything\n"))


def test_a_stale_output_is_renewed(outputs: ModuleType) -> None:
    renewed = outputs.renewed(SHOWN.format("stale\n"), outputs.SHOWN)
    assert "busbridge2025-figure1-runs" in renewed
    assert "stale" not in renewed
    assert outputs.renewed(renewed, outputs.SHOWN) == renewed


def test_measured_outputs_are_renewed_only_when_asked_for(outputs: ModuleType) -> None:
    text = SHOWN.format("old\n").replace("shown", "measured")
    assert outputs.renewed(text, outputs.SHOWN) == text
    assert "hoffmann2022" in outputs.renewed(text, outputs.SHOWN, outputs.MEASURED)


@pytest.mark.parametrize(
    ("now", "same"),
    [
        ("fitted in 9.9 s: 1.4468 (34 %)", True),
        ("fitted in 1.7 s: 1.4469 (34 %)", True),
        ("fitted in 1.7 s: 1.4668 (34 %)", False),
        ("fitted in 1.7 s: 1.4468 (35 %)", False),
        ("refitted in 1.7 s: 1.4468 (34 %)", False),
        ("fitted in 1.7 s: 1.4468 (34 %); 2", False),
    ],
)
def test_numbers_may_differ_by_rounding_only(outputs: ModuleType, now: str, same: bool) -> None:
    assert outputs.agree("fitted in 1.7 s: 1.4468 (34 %)", now) is same


@pytest.mark.parametrize(
    ("old", "shortened"),
    [
        ("a\nx\ny\n", "one\ntwo\npart 3\nfour\nfive\n"),
        ("a\n| ...\nx\ny\n", "one\n| ...\nfour\nfive\n"),
        ("...\nx\n", "...\nfive\n"),
        ("a\n...\n", "one\n...\n"),
        ("...\npart 7\nold\n...\n", "...\npart 3\nfour\n...\n"),
        ("a\n...\npart 7\n...\nx\n", "one\n...\npart 3\n...\nfive\n"),
        ("a\nb\nc\n...\nx\ny\n", "one\ntwo\npart 3\nfour\nfive\n"),
    ],
)
def test_lines_left_out_stay_left_out(outputs: ModuleType, old: str, shortened: str) -> None:
    assert outputs.shortened("one\ntwo\npart 3\nfour\nfive\n", old) == shortened


def test_a_passage_that_has_gone_is_named(outputs: ModuleType) -> None:
    with pytest.raises(ValueError, match="no line like 'held out' in the output"):
        outputs.shortened("one\ntwo\n", "...\nheld out\n...\n")
