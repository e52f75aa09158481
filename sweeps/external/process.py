"""Process of a command, under a guard that ends it with all that it started."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.errors import InputError
from sweeps.external import guard
from sweeps.store.outcomes import Ending, Stopped

MARK = "DISTLAW_STEP"
"""Environment variable that marks all processes of a step, with the store and the id."""
CLEARING_SECONDS = 10.0
"""Seconds in which processes that an earlier attempt has left must be gone after SIGKILL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandEnd:
    """End of a command, all of whose processes have exited."""

    exit: int
    """Exit code; negative for a signal."""
    tail: str
    """Last part of its output."""
    bytes: int
    """Bytes of its output."""
    left: int
    """Processes that it had left, which were killed."""
    killed: str
    """Reason for which the guard killed it; empty if it exited by itself."""


class CommandProcess:
    """Running command."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        logs: Sequence[Path],
        grace: float,
        until: float,
    ) -> None:
        """Start the command in the current directory.

        Args:
            argv: Program and arguments.
            env: All of its environment.
            logs: Files to which its output is appended.
            grace: Seconds between SIGTERM and SIGKILL, if the guard itself is asked to stop.
            until: Time of ``time.monotonic()`` at which it is killed, unless :meth:`extend` moves that.
        """
        self.answer = b""
        self.guard = subprocess.Popen(  # noqa: S603  (our own script)
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # signals to this process's group are handled here
            env=dict(env),
        )
        request = {
            "argv": list(argv),
            "env": dict(env),
            "folder": str(Path.cwd()),
            "logs": [str(log) for log in logs],
            "parent": os.getpid(),
            "grace": grace,
        }
        self._say(request)
        self.extend(until)

    def extend(self, until: float) -> None:
        """Move the time at which the guard kills the command, as others may take over then."""
        if until < float("inf"):
            self._say({"until": until})

    def stop(self, grace: float) -> None:
        """Send SIGTERM to the process group, and SIGKILL after ``grace`` seconds."""
        self._say({"stop": grace})

    def wait(self, seconds: float) -> CommandEnd | None:
        """Wait for the end for up to ``seconds``.

        Raises:
            InputError: if there is no such program.
            Stopped: if the guard was killed.
        """
        assert self.guard.stdout is not None
        if not select.select([self.guard.stdout], [], [], seconds)[0]:
            return None
        data = os.read(self.guard.stdout.fileno(), 1 << 16)
        *lines, self.answer = (self.answer + data).split(b"\n")
        for message in map(json.loads, lines):
            if "failed" in message:
                raise _not_started(message)
            if "exit" in message:
                return CommandEnd(**message)
        if not data:
            raise Stopped(Ending.LOST, "the guard of its command was killed")
        return None

    def close(self) -> None:
        """End the command and its guard, whatever they are doing."""
        assert self.guard.stdin is not None
        assert self.guard.stdout is not None
        with suppress(BrokenPipeError):
            self.guard.stdin.close()
        try:
            self.guard.wait(guard.STALL_SECONDS + 1.0)
        except subprocess.TimeoutExpired:
            self.guard.kill()
            self.guard.wait()
        self.guard.stdout.close()

    def _say(self, message: Mapping[str, Any]) -> None:
        assert self.guard.stdin is not None
        with suppress(BrokenPipeError):  # wait() finds it dead
            self.guard.stdin.write(json.dumps(message).encode() + b"\n")
            self.guard.stdin.flush()


def _not_started(message: Mapping[str, Any]) -> Exception:
    file = message.get("file") or "its program"
    if message.get("errno") in (2, 13, 8, 20):
        return InputError(
            f"trainer.command: {file} cannot be started ({message['failed']}); give a program on the PATH of "
            "the machines that run the sweep, or its absolute path"
        )
    return OSError(message.get("errno"), f"the command could not be started: {message['failed']}", file)


def end_leftovers(mark: str) -> int:
    """Kill the processes of a step that an earlier attempt has left on this machine; return their number.

    An attempt whose worker and guard were killed together leaves them. Without /proc none is found.

    Raises:
        Stopped: if some do not end.
    """
    ended, deadline = set[int](), time.monotonic() + CLEARING_SECONDS
    while found := _marked(mark):
        if time.monotonic() > deadline:
            raise Stopped(Ending.LOST, f"process {found[0]} of an earlier attempt does not end")
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended.update(found)
        time.sleep(0.01)
    return len(ended)


def _marked(mark: str) -> list[int]:
    """Return the living processes of this user whose environment has ``mark``."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0") and not _is_dead(folder):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _is_dead(folder: Path) -> bool:
    return (folder / "stat").read_text(encoding="latin-1").rpartition(")")[2].split()[0] in "ZX"
