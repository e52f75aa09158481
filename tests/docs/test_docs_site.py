"""The documentation builds without a warning, asks no foreign host for anything, and shows true commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import sweeps.watch.runs_table
from scaling import published
from sweeps.spec.spec import parse_sweep

ROOT = Path(__file__).parents[2]
YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
FETCHED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
"""Attributes whose targets a browser fetches by itself."""
NOT_FETCHED = {"canonical", "prev", "next"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return out


class Fetches(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in NOT_FETCHED:
            return
        self.found += [value for name, value in given.items() if (tag, name) in FETCHED and value]


def test_no_page_asks_a_foreign_host_for_anything(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        parser = Fetches()
        parser.feed(page.read_text())
        assert parser.found
        assert not [url for url in parser.found if re.match(r"(https?:)?//", url)], page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//[^)]*", sheet.read_text()), sheet


def test_what_is_generated_is_there(site: Path) -> None:
    def page(name: str) -> str:
        return (site / name).read_text()

    assert all(f'id="{name}"' in page("reproducibility.html") for name in published())
    assert "<math" in page("explanation/laws.html")
    assert 'class="arithmatex"' not in page("explanation/laws.html")
    assert "distlaw sweep plan" in page("reference/cli.html")
    assert "batch_tokens" in page("reference/spec.html")
    assert "POST /plan" in page("reference/http.html")
    assert (site / "figures" / "laws.svg").stat().st_size > 10_000
    assert "teacher N, D" in page("tutorial.html")
    left = {path.name for path in site.rglob("*.html") if "<!-- insert" in path.read_text()}
    assert not left


def test_every_command_shown_is_one(command_pages: ModuleType, texts: list[Path]) -> None:
    shown = [(path, line) for path in texts for line in command_pages.commands(path.read_text())]
    shown += [(Path("help"), line) for line in command_pages.commands(command_pages.reference())]
    assert len(shown) > 60
    wrong = {f"{path.name}: {line}": why for path, line in shown if (why := command_pages.objection(line))}
    assert not wrong


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("distlaw plan --studnet 300M", "--studnet"),
        ("distlaw sweep plam quickstart", "no command 'plam'"),
        ("distlaw predict --student 1B", "--tokens"),
    ],
)
def test_a_command_that_is_none_would_be_noticed(command_pages: ModuleType, line: str, why: str) -> None:
    assert why in command_pages.objection(line)


def test_every_part_of_a_spec_shown_is_one(texts: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "samples")  # of parts of methods that a spec uses
    grid = {"params": ["13k"], "tokens": ["1M"]}
    spec = {"name": "shown", "supervised": [grid], "teachers": [grid, grid], "students": [grid]}
    shown = [(path, text) for path in texts for text in YAML.findall(path.read_text())]
    assert len(shown) >= 4
    for path, text in shown:
        assert parse_sweep(spec | yaml.safe_load(text), path.name)


def test_the_page_of_the_runs_table_has_its_columns() -> None:
    page = (ROOT / "docs/reference/runs-table.md").read_text().split("## What a fit needs")[0]
    columns = re.findall(r"^\| `(\w+)`", page, re.MULTILINE)
    table = sweeps.watch.runs_table
    assert columns == [*table.COLUMNS, *table.THROUGHPUT_COLUMNS, *table.METRIC_COLUMNS]
