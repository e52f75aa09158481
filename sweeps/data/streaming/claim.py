"""Claims on work in a directory that several machines may share: numbered, created once, kept alive.

On one machine a lock of the kernel decides (:func:`~sweeps.data.cache.locked`), which is free as soon as its
holder dies. Between machines the next number may be claimed when the record of the last has not changed for
``DISTLAW_LEASE_SECONDS`` by the clock of the observer, or says that its holder gave up.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BEATS = 10
"""Heartbeats in that time."""
POLL_SECONDS = 0.25
"""Seconds between two looks at the claim of another machine."""


def patience() -> float:
    """Return the seconds without a heartbeat after which the work is taken over.

    Settings are read, and may be refused, when a command needs them and not when a package is imported.
    """
    from sweeps.environment import LEASE_SECONDS

    return LEASE_SECONDS


class TakenOver(Exception):
    """Another machine works on it, as this one was not heard of for too long."""


class Claim:
    """Claim of this process."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number, self.beats = folder, number, 0
        self.id = uuid.uuid4().hex

    def create(self) -> bool:
        """Create its record; return False if another process was first."""
        try:
            with _file(self.folder, self.number).open("x") as record:
                record.write(self._record())
        except FileExistsError:
            return False
        return True

    def fence(self) -> None:
        """Check that nobody has taken over.

        Raises:
            TakenOver: If somebody has.
        """
        if _file(self.folder, self.number + 1).exists():
            raise TakenOver

    def beat(self, *, ended: bool = False) -> None:
        """Rewrite its record."""
        self.beats += 1
        scratch = self.folder / f".{self.id}"
        scratch.write_text(self._record(ended=ended))
        os.replace(scratch, _file(self.folder, self.number))  # noqa: PTH105

    def _record(self, *, ended: bool = False) -> str:
        about = {"id": self.id, "host": socket.gethostname(), "machine": _machine(), "beat": self.beats}
        return json.dumps(about | {"ended": ended})


@contextmanager
def claimed(folder: Path) -> Iterator[Claim | None]:
    """Hold the claim on ``folder`` while the block runs; None where another machine has it.

    Waits until it is told that the other is at work. The caller holds the lock of this machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = max((int(path.stem) for path in folder.glob("*.claim")), default=0)
    if last and not _is_free(_file(folder, last)):
        yield None
        return
    claim = Claim(folder, last + 1)
    if not claim.create():
        yield None
        return
    over = threading.Event()

    def beat() -> None:
        while not over.wait(patience() / BEATS):
            with suppress(OSError):
                claim.beat()

    thread = threading.Thread(target=beat, name="claim", daemon=True)
    thread.start()
    try:
        yield claim
    finally:
        over.set()
        thread.join()
        with suppress(OSError):  # the directory is gone where the work is done
            claim.beat(ended=True)


def _is_free(record: Path) -> bool:
    """Watch a record: return True if its holder has ended, or is not heard of; False once it is heard of."""
    first, since = _text(record), time.monotonic()
    with suppress(ValueError):
        about = json.loads(first)
        if about["ended"] or about["machine"] == _machine():
            return True  # the lock of this machine is ours, so its holder is dead
    while time.monotonic() - since < patience():
        time.sleep(POLL_SECONDS)
        if _text(record) != first:
            return False
    return True


def _text(record: Path) -> str:
    try:
        return record.read_text()
    except OSError:
        return ""


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.claim"


def _machine() -> str:
    """Return an id of this boot of the kernel, whose locks its processes share."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
