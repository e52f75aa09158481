"""Endings of attempts at a step, and the number of retries after each."""

from __future__ import annotations

import errno
import signal
import traceback
from enum import StrEnum
from pathlib import Path

from scaling.errors import InputError
from sweeps.spec.method.registry import OWN_MODULES


class Ending(StrEnum):
    """Ending of an attempt."""

    DONE = "done"
    """The step's result is in the store."""
    FAILED = "failed"
    """An error of the step or its input, which another attempt would repeat."""
    MEMORY = "memory"
    """Out of memory."""
    CRASHED = "crashed"
    """Crash of its process."""
    LOST = "lost"
    """Loss of its process, node or network, for no reason of the step."""
    UNSTARTED = "unstarted"
    """No worker could start, for want of a package, a device or memory for a process."""
    FULL = "full"
    """The store is full, for all steps."""
    DENIED = "denied"
    """The store is not writable, for all steps."""
    HELD = "held"
    """Another process works on the step."""
    CANCELLED = "cancelled"
    """A request to stop was made."""


RETRIES = {Ending.MEMORY: 1, Ending.CRASHED: 2, Ending.UNSTARTED: 2, Ending.LOST: 30}
"""Retries after each ending; none after others."""
STORE_ENDINGS = {
    Ending.FULL: "the store is full: {}; make room and start again",
    Ending.DENIED: "the store cannot be written: {}; change its permissions and start again",
}
"""Endings that affect all steps, and the messages with which they stop the sweep."""
TRY_LATER = 75
"""Exit code that asks to be started again (EX_TEMPFAIL), of batch jobs and of commands."""
BACKOFF_SECONDS = 1.0
"""Seconds before the first retry; doubled each time, up to the limit."""
BACKOFF_LIMIT = 60.0

TRANSIENT = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
PERMISSION_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS}
CLIENT_ERRORS = {"HTTPClientError", "ConnectionError", "ClientConnectionError", "HttpError"}
"""Exceptions of clients of object stores for network failures, by name, as none need be installed."""
PREEMPTION_SIGNALS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class Stopped(Exception):
    """Raised if another process has taken over the step, or a stop was requested."""

    def __init__(self, ending: Ending, why: str) -> None:
        super().__init__(why)
        self.ending = ending

    def __reduce__(self) -> tuple[type[Stopped], tuple[Ending, str]]:
        """Return how another process of a gang makes its copy."""
        return Stopped, (self.ending, str(self))


def ending_of(error: BaseException, store: str | None = None) -> Ending:
    """Return the ending for an exception.

    ``store`` is the path of the store; permission errors of its files end all steps.
    """
    if isinstance(error, Stopped):
        return error.ending
    if not isinstance(error, Exception):  # Ctrl-C, or the generator was closed
        return Ending.LOST
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Ending.MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Ending.FULL
    if (
        store
        and isinstance(error, OSError)
        and error.errno in PERMISSION_ERRNOS
        and store in str(error.filename)
    ):
        return Ending.DENIED
    if isinstance(error, ImportError):  # on this node; others may have it
        return Ending.UNSTARTED
    return Ending.LOST if is_transient(error) else Ending.FAILED


def is_fault_of_own_part(error: BaseException) -> bool:
    """Return True for an error from a module that a spec uses, which concerns no other run."""
    return ending_of(error) is Ending.FAILED and bool(_place_in_own_part(error))


def is_transient(error: BaseException) -> bool:
    """Return True for errors of a network or file system that may be temporary."""
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in TRANSIENT
    return any(each.__name__ in CLIENT_ERRORS for each in type(error).__mro__)


def ending_of_process(code: int, *, oom_kills: int = 0) -> tuple[Ending, str]:
    """Return the ending and a reason for a process that exited with ``code`` (a signal if negative).

    ``oom_kills`` is the number of processes that the kernel killed for memory while it ran.
    """
    if code >= 0:
        return Ending.CRASHED, f"its process exited with {code} before it was done"
    name = signal.Signals(-code).name
    if -code == signal.SIGKILL and oom_kills:
        return Ending.MEMORY, "the kernel killed its process because memory ran out"
    if -code in PREEMPTION_SIGNALS:
        return Ending.LOST, f"its process was stopped by {name}"
    return Ending.CRASHED, f"its process died of {name}"


def oom_kills() -> int:
    """Return the number of processes of this container killed for memory; 0 if unknown."""
    try:
        lines = Path("/sys/fs/cgroup/memory.events").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def backoff_seconds(retries: int) -> float:
    """Return the seconds to wait before the next attempt, after ``retries`` of its kind."""
    return min(BACKOFF_LIMIT, BACKOFF_SECONDS * 2.0 ** min(30, max(0, retries - 1)))


def last_error_line(printed: bytes) -> str:
    """Return the line of a process's output with the reason of its exit: the exception, or the first line."""
    lines = [line.strip() for line in printed.decode(errors="replace").splitlines() if line.strip()]
    if any(line.startswith("Traceback ") for line in lines):
        return lines[-1]
    return lines[0] if lines else ""


def error_line(error: BaseException) -> str:
    """Describe an error in one line."""
    text = str(error).strip()
    if isinstance(error, InputError | Stopped):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    place = _place_in_own_part(error)
    return (f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__) + place


def _place_in_own_part(error: BaseException) -> str:
    """Return `` (FILE:LINE)`` of the innermost line in a module that a spec uses, if there is one."""
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") in OWN_MODULES
    ]
    return f" ({Path(frames[-1][0]).name}:{frames[-1][1]})" if frames else ""
