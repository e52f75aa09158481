"""The processes that drive a sweep: each leaves a record of where, since when and for how long.

::

    store/drivers/<id>.json     rewritten while it lives; sweeps.store.driver_watch reads it
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from contextlib import suppress
from types import TracebackType
from typing import Any

from sweeps.execute.state import State
from sweeps.store.driver_watch import DRIVERS
from sweeps.store.leases import _started, gone, now, this_process
from sweeps.store.store import Store

FIRST_BEAT = 0.5
"""Seconds to the first beat; doubled each time, up to the usual time between two."""
BEATS_LOCAL, BEATS_REMOTE = 2.0, 10.0
"""Seconds between two beats, on a disk and on an object store, where each costs money."""
SILENT_SECONDS = 60.0
"""After which a driver that could not say goodbye is taken for gone."""


class Drivers:
    """All drivers that ever worked on a store, followed: those that are gone are read once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.over: dict[str, float] = {}
        """Seconds that each took that has ended, or is known to be gone."""
        self.seen: dict[str, tuple[dict[str, Any], float]] = {}
        """The last record of each other, and when it was first seen, by our clock."""

    def look(self) -> None:
        """Read the records of those that may have changed."""
        for name in self.store.names(DRIVERS):
            if name in self.over or not name.endswith(".json"):
                continue
            asked, record = time.monotonic(), self.store.read(DRIVERS, name)
            if not record:
                continue
            if record["ended"] or gone(record):
                self.over[name] = _seconds(record)
                self.seen.pop(name, None)
            elif name not in self.seen or self.seen[name][0] != record:
                self.seen[name] = record, asked

    def works(self, name: str) -> bool:
        """Whether a driver may be at work: it is not known to be gone, and has not been silent for long."""
        if name not in self.over and name not in self.seen:
            self.look()
        return name in self.seen and time.monotonic() - self.seen[name][1] < SILENT_SECONDS

    def seconds(self, but: str = "") -> float:
        """Seconds that drivers were at work, at most, added up; one of them may be left out."""
        others = (_seconds(record) for name, (record, _) in self.seen.items() if name != but)
        return float(sum(self.over.values()) + sum(others))


def _seconds(record: dict[str, Any]) -> float:
    """How long a driver worked, at most: up to the words that it did not say, if it could not say goodbye."""
    return float(record["seconds"] + (0.0 if record["ended"] else record.get("due", BEATS_REMOTE)))


class Session:
    """The record of this process as a driver of the sweep, and what it knows of the others."""

    def __init__(self, store: Store, slots: int, begun: float | None = None) -> None:
        """Time counts from ``begun`` on, by ``time.monotonic()``; by default from now on."""
        self.store, self.slots = store, slots
        self.drivers = Drivers(store)
        self.name = f"{uuid.uuid4().hex[:12]}.json"
        self.since = begun or time.monotonic()
        self.record: dict[str, Any] = {**this_process(), "started": now(), "slots": slots}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="driver", daemon=True)

    def __enter__(self) -> Session:
        self._write(ended=None, due=FIRST_BEAT)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._write(ended=now())

    @property
    def seconds(self) -> float:
        """How long it has been at work."""
        return time.monotonic() - self.since

    def tell(self, state: State) -> None:
        """Have the next beat say how long it may take."""
        self.record["seconds_left"] = state.seconds_left(self.slots)

    def works(self, driver: str) -> bool:
        """Whether a driver may be at work, this one or another."""
        return driver == self.name or self.drivers.works(driver)

    def all_seconds(self) -> tuple[float, int]:
        """Seconds that all drivers were at work so far, added up, and how many are now."""
        self.drivers.look()
        others = [name for name in self.drivers.seen if name != self.name and self.drivers.works(name)]
        return self.drivers.seconds(but=self.name) + self.seconds, 1 + len(others)

    def _beat(self) -> None:
        wait, longest = FIRST_BEAT, BEATS_LOCAL if self.store.local else BEATS_REMOTE
        while not self._over.wait(wait):
            wait = min(2 * wait, longest)
            self._write(ended=None, due=wait)

    def _write(self, ended: str | None, due: float = 0.0) -> None:
        with suppress(Exception):  # a store that is away or full; the others see that it is silent
            record = {**self.record, "seconds": self.seconds, "ended": ended, "due": due}
            self.store.write(record, DRIVERS, self.name, durable=False)


def process_began() -> float:
    """Return when this process began, by ``time.monotonic()``; now, where the system does not say."""
    age = 0.0
    if sys.platform == "linux" and (ticks := _started(os.getpid())):
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - max(0.0, age)


def drivers(store: Store) -> list[dict[str, Any]]:
    """The records of all drivers that ever worked here."""
    found = (store.read(DRIVERS, name) for name in store.names(DRIVERS) if name.endswith(".json"))
    return [record for record in found if record]


def alive(store: Store) -> list[dict[str, Any]]:
    """Those at work now: as their process says on this machine, as the age of their record does elsewhere."""
    names = [name for name in store.names(DRIVERS) if name.endswith(".json")]
    found = []
    for name in names:
        record = store.read(DRIVERS, name)
        if record and not record["ended"] and not gone(record) and store.age(DRIVERS, name) < SILENT_SECONDS:
            found.append(record)
    return found


def wall_seconds(store: Store) -> float:
    """Seconds that drivers were at work, one after the other or side by side, added up."""
    found = Drivers(store)
    found.look()
    return found.seconds()
