"""Drivers, the processes that run a scheduler: each keeps a record of its host and time.

::

    store/drivers/<id>.json     rewritten while it runs; its workers read it (sweeps.store.time_limit)
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sweeps.store import clock
from sweeps.store.clock import timestamp
from sweeps.store.processes import has_exited, process_start_ticks, this_process
from sweeps.store.store import Store
from sweeps.store.time_limit import DRIVERS

if TYPE_CHECKING:
    from sweeps.execute.state import State

FIRST_BEAT = 0.5
"""Seconds to the first heartbeat; doubled each time, up to the usual interval."""
BEATS_LOCAL, BEATS_REMOTE = 2.0, 10.0
"""Seconds between two heartbeats, on a disk and on an object store, where each costs money."""
SILENT_SECONDS = 60.0
"""Seconds without a heartbeat after which a driver counts as exited."""


class Drivers:
    """Records of all drivers of a store, read incrementally: those of exited ones once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.over: dict[str, float] = {}
        """Seconds of each driver that has exited."""
        self.seen: dict[str, tuple[dict[str, Any], float]] = {}
        """Last record of each other driver, and when it was first seen, by this clock."""

    def look(self) -> None:
        """Read the records that may have changed."""
        for name in self.store.names(DRIVERS):
            if name in self.over or not name.endswith(".json"):
                continue
            asked, record = clock.monotonic(), self.store.read(DRIVERS, name)
            if not record:
                continue
            if record["ended"] or has_exited(record):
                self.over[name] = _seconds(record)
                self.seen.pop(name, None)
            elif name not in self.seen or self.seen[name][0] != record:
                self.seen[name] = record, asked

    def works(self, name: str) -> bool:
        """Return True if a driver may be active: not known to have exited, and not silent for long."""
        if name not in self.over and name not in self.seen:
            self.look()
        return name in self.seen and clock.monotonic() - self.seen[name][1] < SILENT_SECONDS

    def discount(self, seconds: float) -> None:
        """Do not count the last ``seconds`` as silence, as the store did not answer."""
        self.seen = {name: (record, since + seconds) for name, (record, since) in self.seen.items()}

    def seconds(self, but: str = "") -> float:
        """Return the sum of the drivers' seconds, an upper bound, without driver ``but``."""
        others = (_seconds(record) for name, (record, _) in self.seen.items() if name != but)
        return float(sum(self.over.values()) + sum(others))


def _seconds(record: dict[str, Any]) -> float:
    """Return the seconds of a driver: up to its next heartbeat, if it did not record its end."""
    return float(record["seconds"] + (0.0 if record["ended"] else record.get("due", BEATS_REMOTE)))


class Session:
    """Record of this process as a driver of the sweep, with its view of the others."""

    def __init__(self, store: Store, slots: int, begun: float | None = None) -> None:
        """Start a session; its time counts from ``begun``, by ``time.monotonic()``, by default from now."""
        self.store, self.slots = store, slots
        self.drivers = Drivers(store)
        self.name = f"{uuid.uuid4().hex[:12]}.json"
        self.since = begun or clock.monotonic()
        self.record: dict[str, Any] = {**this_process(), "started": timestamp(), "slots": slots}
        self._over, self._writing = threading.Event(), threading.Lock()
        self._due = FIRST_BEAT
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
        self._write(ended=timestamp())

    @property
    def seconds(self) -> float:
        """Seconds of this session so far."""
        return clock.monotonic() - self.since

    def tell(self, state: State) -> None:
        """Record with the next heartbeat the estimated time left, what waits for nodes, and a dashboard."""
        told = {"waiting": state.waiting, "dashboard": state.dashboard}
        self.record |= {"seconds_left": state.seconds_left(self.slots), **told}

    def extend(self, time_limits: Mapping[str, float]) -> None:
        """Tell the workers their time limits in seconds by job, which are reserved."""
        self.record["time_limits"] = dict(time_limits)
        self._write(ended=None, due=self._due)

    def works(self, driver: str) -> bool:
        """Return True if a driver, this one or another, may be active."""
        return driver == self.name or self.drivers.works(driver)

    def all_seconds(self) -> tuple[float, int]:
        """Return the sum of all drivers' seconds so far, and the number of active ones."""
        self.drivers.look()
        others = [name for name in self.drivers.seen if name != self.name and self.drivers.works(name)]
        return self.drivers.seconds(but=self.name) + self.seconds, 1 + len(others)

    def _beat(self) -> None:
        wait, longest = FIRST_BEAT, BEATS_LOCAL if self.store.local else BEATS_REMOTE
        while not self._over.wait(wait):
            wait = min(2 * wait, longest)
            self._write(ended=None, due=wait)

    def _write(self, ended: str | None, due: float = 0.0) -> None:
        self._due = due
        with self._writing, suppress(Exception):  # the store is unavailable; others see that this is silent
            record = {**self.record, "seconds": self.seconds, "ended": ended, "due": due}
            self.store.write(record, DRIVERS, self.name, durable=False)


def process_began() -> float:
    """Return the start of this process, by ``time.monotonic()``; now, if the system does not tell."""
    age = 0.0
    if sys.platform == "linux" and (ticks := process_start_ticks(os.getpid())):
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - max(0.0, age)


def driver_records(store: Store) -> list[dict[str, Any]]:
    """Return the records of all drivers of a store."""
    found = (store.read(DRIVERS, name) for name in store.names(DRIVERS) if name.endswith(".json"))
    return [record for record in found if record]


def active_drivers(store: Store) -> list[dict[str, Any]]:
    """Return the records of active drivers, by their process on this machine or the age of their record."""
    names = [name for name in store.names(DRIVERS) if name.endswith(".json")]
    found = []
    for name in names:
        record = store.read(DRIVERS, name)
        if (
            record
            and not record["ended"]
            and not has_exited(record)
            and store.age(DRIVERS, name) < SILENT_SECONDS
        ):
            found.append(record)
    return found


def wall_seconds(store: Store) -> float:
    """Return the sum of the seconds of all drivers of a store."""
    found = Drivers(store)
    found.look()
    return found.seconds()
