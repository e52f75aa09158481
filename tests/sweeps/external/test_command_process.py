"""Process of a command: whatever happens to it, its guard or its worker, nothing that it started goes on."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.external.guard import descendants
from sweeps.external.process import MARK, CommandEnd, CommandProcess, end_leftovers
from sweeps.store.outcomes import Stopped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descendants are found in /proc")
FAMILY = "sleep 600 & setsid sleep 600 & (setsid sleep 600 &) ; touch ready; "
"""A child, one in a session of its own, and an orphan."""
Start = Callable[..., CommandProcess]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start a line of shell that leaves a family; return when it is there."""
    monkeypatch.chdir(tmp_path)

    def started(line: str, until: float = float("inf")) -> CommandProcess:
        env = {**os.environ, MARK: f"{tmp_path}#0"}
        argv = ["sh", "-c", FAMILY + line]
        process = CommandProcess(argv, env, logs=[tmp_path / "log"], grace=5.0, until=until)
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        return process

    return started


def living(tmp_path: Path) -> int:
    """Count processes of the family that live."""
    marked = f"{MARK}={tmp_path}#0".encode()
    environs = [folder / "environ" for folder in Path("/proc").glob("[0-9]*")]
    count = 0
    for environ in environs:
        try:
            count += marked in environ.read_bytes() and b"sleep" in (environ.parent / "cmdline").read_bytes()
        except OSError:
            continue
    return count


def ended(process: CommandProcess, seconds: float = 20.0) -> CommandEnd:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if end := process.wait(0.5):
            process.close()
            return end
    raise AssertionError("the command did not end")


def test_a_command_that_exits_leaves_nobody(start: Start, tmp_path: Path) -> None:
    end = ended(start("echo words; exit 3"))
    assert (end.exit, end.tail, end.left, end.killed) == (3, "words\n", 3, "")
    assert (tmp_path / "log").read_text() == "words\n"
    assert living(tmp_path) == 0


def test_an_expired_lease_kills_at_once(start: Start, tmp_path: Path) -> None:
    """Without a word of its worker, which may be suspended."""
    process = start("sleep 600", until=time.monotonic() + 1.0)
    end = ended(process)
    assert (end.exit, end.killed) == (-signal.SIGKILL, "its lease has expired")
    assert living(tmp_path) == 0


def test_a_renewed_lease_goes_on(start: Start) -> None:
    process = start("sleep 1", until=time.monotonic() + 0.5)
    process.extend(time.monotonic() + 60)
    assert ended(process).exit == 0


def test_deaf_ones_are_killed_after_their_grace(start: Start, tmp_path: Path) -> None:
    process = start("trap '' TERM; while true; do sleep 0.1; done")
    time.sleep(0.2)
    begun = time.monotonic()
    process.stop(0.5)
    assert ended(process).killed == "it did not stop when asked"
    assert time.monotonic() - begun >= 0.5
    assert living(tmp_path) == 0


def test_a_worker_that_exits_takes_all_along(start: Start, tmp_path: Path) -> None:
    process = start("sleep 600")
    assert process.guard.stdin is not None
    process.guard.stdin.close()  # as the kernel does
    process.guard.wait(20)
    process.close()
    assert living(tmp_path) == 0


def test_what_a_killed_guard_leaves_the_next_attempt_ends(start: Start, tmp_path: Path) -> None:
    process = start("sleep 600")
    family = descendants(process.guard.pid)
    assert len(family) >= 4
    process.guard.kill()
    with pytest.raises(Stopped, match="guard of its command was killed"):
        ended(process)
    process.close()
    assert 0 < end_leftovers(f"{tmp_path}#0") <= len(family)
    assert living(tmp_path) == 0
    assert end_leftovers(f"{tmp_path}#0") == 0
