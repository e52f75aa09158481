"""The processes that drive a sweep: each leaves a record of where, since when and for how long.

::

    store/drivers/<id>.json     rewritten while it lives
"""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from types import TracebackType
from typing import Any

from sweeps.execution.state import State
from sweeps.storage.leases import gone, now, this_process
from sweeps.storage.store import Store

FOLDER = "drivers"
BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
"""After which a driver that could not say goodbye is taken for gone."""


class Session:
    """The record of this process as a driver of the sweep."""

    def __init__(self, store: Store, slots: int) -> None:
        self.store, self.slots = store, slots
        self.before = wall_seconds(store)
        """Seconds that all drivers before this one took."""
        self.name = f"{uuid.uuid4().hex[:12]}.json"
        self.since, self.due = time.monotonic(), 0.0
        self.record: dict[str, Any] = {**this_process(), "started": now(), "slots": slots}

    def __enter__(self) -> Session:
        self._write(ended=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(ended=now())

    @property
    def seconds(self) -> float:
        """How long it has been at work."""
        return time.monotonic() - self.since

    def beat(self, state: State) -> None:
        """Say now and then that it lives, and how long it may take."""
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + BEAT_SECONDS
            self.record["seconds_left"] = state.seconds_left(self.slots)
            self._write(ended=None)

    def _write(self, ended: str | None) -> None:
        with suppress(Exception):  # a record for the eye, on a store that may be away or full
            record = {**self.record, "seconds": self.seconds, "ended": ended}
            self.store.write(record, FOLDER, self.name)


def drivers(store: Store) -> list[dict[str, Any]]:
    """The records of all drivers that ever worked here."""
    found = (store.read(FOLDER, name) for name in store.names(FOLDER) if name.endswith(".json"))
    return [record for record in found if record]


def alive(store: Store) -> list[dict[str, Any]]:
    """Those at work now: as their process says on this machine, as the age of their record does elsewhere."""
    names = [name for name in store.names(FOLDER) if name.endswith(".json")]
    found = []
    for name in names:
        record = store.read(FOLDER, name)
        if record and not record["ended"] and not gone(record) and store.age(FOLDER, name) < SILENT_SECONDS:
            found.append(record)
    return found


def wall_seconds(store: Store) -> float:
    """Seconds that drivers were at work, one after the other or side by side."""
    return float(sum(record["seconds"] for record in drivers(store)))
