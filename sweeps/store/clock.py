"""Clock of drivers, leases and budgets, which a simulation replaces by virtual time.

Only what is decided or recorded reads it; the kernel's timers and waiting for processes remain real.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Source of time."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment, which never go back."""

    def time(self) -> float:
        """Return seconds since the epoch."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """Time of this machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


_clock: Clock = SystemClock()


def monotonic() -> float:
    """Return the seconds of the current clock, which never go back."""
    return _clock.monotonic()


def sleep(seconds: float) -> None:
    """Wait for ``seconds`` of the current clock."""
    _clock.sleep(seconds)


def timestamp() -> str:
    """Return the current time, UTC, in ISO format."""
    return datetime.fromtimestamp(_clock.time(), UTC).isoformat(timespec="seconds")


@contextmanager
def replaced_by(clock: Clock) -> Iterator[None]:
    """Use another clock in all threads while the block runs."""
    global _clock
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before
