"""How attempts at a step end, and how many more each ending earns."""

from __future__ import annotations

import errno
import signal
from enum import StrEnum
from pathlib import Path

from scaling.errors import InputError


class Ending(StrEnum):
    """How an attempt ended."""

    DONE = "done"
    """The step's result is in the store."""
    FAILED = "failed"
    """An error of the step or its input: another attempt would fail alike."""
    MEMORY = "memory"
    """Memory ran out."""
    CRASHED = "crashed"
    """Its process died of a fault."""
    LOST = "lost"
    """Its process, node or network was taken away, which says nothing about the step."""
    UNSTARTED = "unstarted"
    """No worker could begin: a package, a device or the memory for a process is missing where it ran."""
    FULL = "full"
    """The store has no room left, for this step or any other."""
    DENIED = "denied"
    """The store may not be written any more, for this step or any other."""
    HELD = "held"
    """Another process works on the step."""
    CANCELLED = "cancelled"
    """Somebody asked for it to stop."""


RETRIES = {Ending.MEMORY: 1, Ending.CRASHED: 2, Ending.UNSTARTED: 2, Ending.LOST: 30}
"""Attempts after the first that each kind of ending earns; none for others."""
OF_THE_STORE = {
    Ending.FULL: "the store is full: {}; make room and start again",
    Ending.DENIED: "the store cannot be written: {}; mend its permissions and start again",
}
"""Endings that no other step would escape, and what is said where they stop the sweep."""
BACKOFF_SECONDS = 1.0
"""Before the first of several attempts; doubled each time, up to the limit."""
BACKOFF_LIMIT = 60.0

TRANSIENT = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
OF_CLIENTS = {"HTTPClientError", "ConnectionError", "ClientConnectionError", "HttpError"}
"""What clients of object stores raise when the network fails, by name: none of them need be installed."""
TAKEN_AWAY = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class Stopped(Exception):
    """Somebody else has taken the step over, or asked for it to stop."""

    def __init__(self, ending: Ending, why: str) -> None:
        super().__init__(why)
        self.ending = ending


def ending_of(error: BaseException, store: str | None = None) -> Ending:
    """The kind of ending that an exception is.

    ``store`` is the path of the store, whose own files nobody can do without.
    """
    if isinstance(error, Stopped):
        return error.ending
    if not isinstance(error, Exception):  # Ctrl-C, or nobody waits for it any more
        return Ending.LOST
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Ending.MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Ending.FULL
    if store and isinstance(error, OSError) and error.errno in FORBIDDEN and store in str(error.filename):
        return Ending.DENIED
    if isinstance(error, ImportError):  # on this node; others may have it
        return Ending.UNSTARTED
    return Ending.LOST if is_transient(error) else Ending.FAILED


def is_transient(error: BaseException) -> bool:
    """Whether an error is one of a network or file system that may be well again in a moment."""
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in TRANSIENT
    return any(each.__name__ in OF_CLIENTS for each in type(error).__mro__)


def ending_of_process(code: int, *, oom_kills: int = 0) -> tuple[Ending, str]:
    """The kind of ending, and a reason, where a process ended with ``code`` (a signal if negative).

    ``oom_kills`` counts the processes that the kernel killed for memory while it ran.
    """
    if code >= 0:
        return Ending.CRASHED, f"its process exited with {code} before it was done"
    name = signal.Signals(-code).name
    if -code == signal.SIGKILL and oom_kills:
        return Ending.MEMORY, "the kernel killed its process because memory ran out"
    if -code in TAKEN_AWAY:
        return Ending.LOST, f"its process was stopped by {name}"
    return Ending.CRASHED, f"its process died of {name}"


def oom_kills() -> int:
    """Processes of this container that the kernel has killed for memory; 0 where it does not say."""
    try:
        lines = Path("/sys/fs/cgroup/memory.events").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def backoff(retries: int) -> float:
    """Seconds to wait before the next attempt, after ``retries`` of its kind; never none."""
    return min(BACKOFF_LIMIT, BACKOFF_SECONDS * 2.0 ** min(30, max(0, retries - 1)))


def told_by(printed: bytes) -> str:
    """The line of what a process printed that says why it ended: its exception, or else its first line."""
    lines = [line.strip() for line in printed.decode(errors="replace").splitlines() if line.strip()]
    if any(line.startswith("Traceback ") for line in lines):
        return lines[-1]
    return lines[0] if lines else ""


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = str(error).strip()
    if isinstance(error, InputError | Stopped):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
