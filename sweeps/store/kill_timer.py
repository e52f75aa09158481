"""Timer of the kernel that kills this process at a given time, whatever it is doing then.

A thread would depend on the interpreter, and cannot run in a process that is stopped. On Linux the kernel
sends SIGKILL, which also ends stopped processes. Elsewhere it sends SIGALRM, which does not.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import Any

_CLOCK_MONOTONIC = 1
_TIMER_ABSTIME = 1
_SIGEV_SIGNAL = 0


class _SigEvent(ctypes.Structure):
    """``struct sigevent`` of Linux, 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _TimerSpec(ctypes.Structure):
    """``struct itimerspec``."""

    _fields_ = tuple(
        (name, ctypes.c_long)
        for name in ("interval_seconds", "interval_nanoseconds", "seconds", "nanoseconds")
    )


class KillTimer:
    """Timer that kills the process which created it; a process forked from that one has no timer."""

    def __init__(self) -> None:
        """Create the timer, which does nothing until it is set."""
        self._timer = _create_timer() if sys.platform == "linux" else None

    def set(self, at: float) -> None:
        """Have this process killed at ``at``, by ``time.monotonic()``, instead of when it was set before.

        Raises:
            OSError: if the timer cannot be set.
        """
        if self._timer is None:
            signal.setitimer(signal.ITIMER_REAL, max(1e-6, at - time.monotonic()))
            return
        nanoseconds = max(1, int(at * 1e9))
        due = _TimerSpec(0, 0, nanoseconds // 10**9, nanoseconds % 10**9)
        if _libc().timer_settime(self._timer, _TIMER_ABSTIME, ctypes.byref(due), None):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _create_timer() -> ctypes.c_void_p | None:
    """Return a timer that sends SIGKILL; None if this kernel or container has none."""
    event, timer = _SigEvent(None, signal.SIGKILL, _SIGEV_SIGNAL), ctypes.c_void_p()
    failed = _libc().timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer))
    return None if failed else timer


def _libc() -> Any:
    """Return the C library with timers, which is separate before glibc 2.34."""
    found = ctypes.CDLL(None, use_errno=True)
    return found if hasattr(found, "timer_create") else ctypes.CDLL("librt.so.1", use_errno=True)
