"""Guard of a command: a small process that starts it, keeps its output, and ends all that it started.

It is run as a script, without this package, so that it starts in milliseconds. It answers a worker over its
standard input and output, one JSON object a line::

    {"argv", "env", "folder", "logs", "parent"}    the first line: the command
    {"until": seconds}                             kill it at that time of time.monotonic(), if not told again
    {"stop": seconds}                              SIGTERM now, SIGKILL after so many seconds
    {"exit", "tail", "bytes", "left", "killed"}    the answer, when all processes of the command have exited

Where the worker exits, the pipe closes and the guard kills the command at once, as another worker may begin.
Orphans of the command become children of the guard (Linux), so none escapes by leaving its process group.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any

HEAD_BYTES = 16_000_000
"""Bytes at the beginning of the output that are kept."""
TAIL_BYTES = 4_000_000
"""Bytes at the end of the output that are kept if there are more."""
TOLD_BYTES = 8_000
"""Bytes at the end of the output that the answer holds."""
STALL_SECONDS = 2.0
"""Seconds in which all processes of a command must be gone after SIGKILL before they are told as left."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Output:
    """Output of the command in log files: its beginning at once, and its end when it is over."""

    def __init__(self, paths: list[str]) -> None:
        self.files = [os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) for path in paths]
        self.total, self.kept = 0, 0
        self.tail: deque[bytes] = deque()
        self.last = b""

    def add(self, data: bytes) -> None:
        """Keep ``data``, in the logs or until the end."""
        self.last = (self.last + data)[-TOLD_BYTES:]
        room = max(0, HEAD_BYTES - self.total)
        self.total += len(data)
        self._write(data[:room])
        if rest := data[room:]:
            self.tail.append(rest)
            self.kept += len(rest)
            while self.kept - len(self.tail[0]) >= TAIL_BYTES:
                self.kept -= len(self.tail.popleft())

    def close(self) -> None:
        """Write the end of the output, after a line on what is left out."""
        if self.tail:
            left_out = self.total - HEAD_BYTES - self.kept
            self._write(f"\n... {left_out:,} bytes left out ...\n".encode() if left_out > 0 else b"")
            self._write(b"".join(self.tail))

    def _write(self, data: bytes) -> None:
        for file in self.files if data else ():
            with suppress(OSError):  # a full disk must not stop the command
                os.write(file, data)


class Guard:
    """Command and the processes that it has started."""

    def __init__(self, request: dict[str, Any], wakes: int) -> None:
        self.output, self.wakes = Output(request["logs"]), wakes
        self.until, self.killed = float("inf"), ""
        self.status: int | None = None
        self.unread = b""
        self.stop_at = float("inf")
        self.process = subprocess.Popen(  # noqa: S603  (the spec's author names it)
            request["argv"],
            cwd=request["folder"],
            env=request["env"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_guard,
        )
        assert self.process.stdout is not None
        self.pipe = self.process.stdout.fileno()
        os.set_blocking(self.pipe, False)

    def run(self) -> dict[str, Any]:
        """Wait for the command to exit, and end all that it has left; return the answer."""
        pipes = {0, self.wakes, self.pipe}
        while self.status is None:
            due = min(self.until, self.stop_at)
            ready = select.select(pipes, [], [], max(0.0, min(due - time.monotonic(), 3600.0)))[0]
            if self.pipe in ready and self._read_output() == 0:
                pipes.discard(self.pipe)
            if 0 in ready and not self._read_message():
                self._kill("its worker has exited")
                pipes.discard(0)
            if self.wakes in ready:
                with suppress(BlockingIOError):
                    os.read(self.wakes, 4096)
            if time.monotonic() >= due:
                self._kill("its lease has expired" if due == self.until else "it did not stop when asked")
            self._reap()
        left = self._end_all()
        while self._read_output():
            pass
        self.output.close()
        return {
            "exit": os.waitstatus_to_exitcode(self.status),
            "tail": self.output.last.decode(errors="replace"),
            "bytes": self.output.total,
            "left": left,
            "killed": self.killed,
        }

    def stop(self, seconds: float, why: str = "") -> None:
        """Ask the process group to stop, and kill it after ``seconds``."""
        self.stop_at = min(self.stop_at, time.monotonic() + seconds)
        self.killed = self.killed or why
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)

    def _read_message(self) -> bool:
        data = os.read(0, 65536)
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            self.until = message.get("until", self.until)
            if "stop" in message:
                self.stop(message["stop"])
        return bool(data)

    def _read_output(self) -> int | None:
        """Read some of the output; return its bytes, 0 at the end, None if there is nothing at the moment."""
        try:
            data = os.read(self.pipe, 1 << 16)
        except BlockingIOError:
            return None
        self.output.add(data)
        return len(data)

    def _kill(self, why: str) -> None:
        self.killed = self.killed or why
        self.until = self.stop_at = float("inf")
        for pid in descendants(os.getpid()) or [self.process.pid]:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Take the exit statuses of the command and of its orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self.process.pid:
                self.status = status

    def _end_all(self) -> int:
        """Kill the processes that the command has left; return how many there were."""
        left, deadline = set(descendants(os.getpid())), time.monotonic() + STALL_SECONDS
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        while (found := descendants(os.getpid())) and time.monotonic() < deadline:
            left.update(found)
            for pid in found:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            time.sleep(0.002)
        return len(left)


def descendants(pid: int) -> list[int]:
    """Return the living processes that descend from ``pid``, on Linux; none elsewhere."""
    parents: dict[int, int] = {}
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  (no pathlib here)
    except OSError:
        return []
    for name in names:
        try:
            with open(f"/proc/{name}/stat", encoding="latin-1") as file:  # noqa: PTH123
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            parents[int(name)] = int(fields[1])
    found, ahead = set[int](), {pid}
    while ahead:
        ahead = {child for child, parent in parents.items() if parent in ahead} - found
        found |= ahead
    return sorted(found)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _die_with_guard() -> None:
    """Have the kernel kill the command when the guard exits; called in the new process."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _first_line() -> bytes:
    """Read the first line, and nothing of what follows."""
    line = b""
    while not line.endswith(b"\n") and (data := os.read(0, 1)):
        line += data
    return line


def _answer(**message: Any) -> None:
    with suppress(OSError):  # the worker has exited
        os.write(1, json.dumps(message).encode() + b"\n")


def main() -> None:
    """Run one command for the worker that started this process."""
    line = _first_line()
    if not line.endswith(b"\n"):
        return
    request = json.loads(line)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    noticed, wakes = os.pipe()
    os.set_blocking(noticed, False)
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    if os.getppid() != request["parent"]:
        return  # the worker has exited, and another may begin
    try:
        guard = Guard(request, noticed)
    except OSError as error:
        _answer(failed=error.strerror or str(error), file=error.filename, errno=error.errno)
        return
    signal.signal(signal.SIGTERM, lambda *_: guard.stop(request["grace"], "its guard was asked to stop"))
    _answer(pid=guard.process.pid)
    _answer(**guard.run())


if __name__ == "__main__":
    main()
