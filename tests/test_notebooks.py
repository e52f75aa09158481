"""Every notebook runs from top to bottom, offline, from what the repository holds, and ships with its outputs.

nbclient, which nbmake wraps, runs them here, because more is asked than that no cell fails.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
LARGEST = 900_000
"""Bytes of a notebook with its outputs."""


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own messaging
def test_the_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that nobody serves: what asks the network for anything fails."""
    for protocol in ("http", "https", "all"):
        monkeypatch.setenv(f"{protocol}_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setenv("DISTLAW_CACHE", str(tmp_path / "cache"))
    copy = tmp_path / "notebooks"
    shutil.copytree(NOTEBOOKS, copy)
    notebook = nbformat.read(copy / name, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(copy)}}
    ).execute()
    found = outputs(notebook)
    assert not [output for output in found if output.output_type == "stream" and output.name == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in found) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_committed_as_it_ran(name: str) -> None:
    """First what the reader will be able to decide; outputs in order, without errors, small, of no one's machine."""
    path = NOTEBOOKS / name
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert re.search(r"At the end of this notebook you (can|will have) decided?\b", notebook.cells[0].source)
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert path.stat().st_size < LARGEST
    assert not re.search(r"/(home|root|work|Users)/", path.read_text())


def test_notebooks_on_the_same_runs_give_the_same_verdict() -> None:
    """One has the runs' own columns, the other a tracker's export of them, without the aspect ratio."""
    headlines = []
    for name in ("quickstart.ipynb", "your_runs.ipynb"):
        pages = [
            "".join(output["data"]["text/html"])
            for output in outputs(nbformat.read(NOTEBOOKS / name, as_version=4))
            if "text/html" in output.get("data", {})
        ]
        (plan,) = (page for page in pages if page.startswith("<p><b>"))
        assert "22K student, 3e11 FLOPs" in plan
        assert "context 128" in plan
        headlines.append(plan.partition("</b>")[0])
    assert headlines[0] == headlines[1]
