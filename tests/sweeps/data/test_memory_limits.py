"""A text of twice the memory is tokenized and trained on, under a limit that the kernel enforces."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
TOUCH = (
    "import sys; from memory_limit import Cgroup; from pathlib import Path\n"
    "Cgroup(Path(sys.argv[1]), '', '', ()).enter()\n"
    "held = bytes(1) * int(float(sys.argv[2]) * 1e6)"
)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("memory_limit")


def test_a_cgroup_limits_a_process_and_is_removed(limits: ModuleType) -> None:
    """Where one can be made: what needs twice the limit is killed, what needs half of it is not."""
    with limits.limited_cgroup(100) as group:
        if group is None:
            pytest.skip("no cgroup can be made here")
        for needed, ending in ((200, -9), (50, 0)):
            command = [sys.executable, "-c", TOUCH, str(group.folder), str(needed)]
            assert subprocess.run(command, cwd=BENCHMARKS, check=False).returncode == ending
        assert group.anonymous_mb() < 100
    assert not group.folder.exists()


@pytest.mark.slow
def test_a_text_of_twice_the_memory(limits: ModuleType, tmp_path: Path) -> None:
    """800 MB under 400 MB, with interpreter and libraries: the tokens, losses and weights of no limit."""
    streamed = import_module("streamed_text")
    streamed.write_text(tmp_path / "text.txt", 800_000_000)
    runs = [
        streamed.in_child(tmp_path / "text.txt", 200, mb, tmp_path / f"cache-{mb}") for mb in (400.0, None)
    ]
    assert runs[0]["limit"] != "none"
    assert runs[0]["same"] == runs[1]["same"]
