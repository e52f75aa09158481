"""Cache of what was read of finished steps: a SQLite file of this machine for each store and kind of values.

An entry holds only as long as the step's stamp (:mod:`sweeps.store.listing`) is what it was, and if its
checksum is right; the files of a store are the only truth. The cache may be deleted at any time, and whoever
cannot use it, or an entry of it, reads the store.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from sweeps.data.cache import cache_dir
from sweeps.store.store import Store

FOLDER = "readings"
WAIT_SECONDS = 5.0
"""Seconds to wait for another process that writes to the same cache."""


class ReadingCache:
    """Values read of the finished steps of a store, by step and stamp."""

    def __init__(self, store: Store, kind: str) -> None:
        place = str(Path(store.path).resolve()) if store.local else store.url
        self.folder = cache_dir() / FOLDER
        self.family = f"{_digest(place)}-{kind}"
        self.path = self.folder / f"{self.family}-{_code()}.sqlite"

    def steps(self) -> dict[str, tuple[str, Any]]:
        """Return all entries by step: stamp and value."""
        with suppress(sqlite3.Error, OSError, ValueError), self._open(write=False) as database:
            found = database.execute("SELECT step, stamp, value, checksum FROM readings").fetchall()
            rows = [entry for *entry, checksum in found if checksum == _checksum(*entry)]
            values = json.loads(f"[{','.join(value for _, _, value in rows)}]")
            if len(values) == len(rows):
                return {step: (stamp, value) for (step, stamp, _), value in zip(rows, values, strict=True)}
        return {}

    def update(self, found: Mapping[str, tuple[str, Any]], gone: set[str]) -> None:
        """Add or replace the entries ``found``, stamp and value by step, and remove those of ``gone``."""
        if not found and not gone:
            return
        entries = [(step, stamp, json.dumps(value)) for step, (stamp, value) in found.items()]
        rows = [(*entry, _checksum(*entry)) for entry in entries]
        for _ in range(2):  # a damaged file is removed, and written anew
            try:
                with self._open(write=True) as database:
                    database.executemany("DELETE FROM readings WHERE step = ?", [(step,) for step in gone])
                    database.executemany("INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?)", rows)
                return
            except sqlite3.OperationalError:  # locked, or not writable
                return
            except (sqlite3.Error, OSError):
                with suppress(OSError):
                    self.path.unlink(missing_ok=True)

    @contextmanager
    def _open(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        if write and not self.path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            for other in self.folder.glob(f"{self.family}-*.sqlite"):  # of other versions of the code
                other.unlink(missing_ok=True)
        uri = f"{self.path.absolute().as_uri()}?mode={'rwc' if write else 'ro'}"
        with closing(sqlite3.connect(uri, timeout=WAIT_SECONDS, uri=True)) as database, database:
            if write:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS readings "
                    "(step TEXT PRIMARY KEY, stamp TEXT, value TEXT, checksum INTEGER)"
                )
            yield database


def _checksum(step: str, stamp: str, value: str) -> int:
    """Return the checksum of an entry, which finds values that were changed or damaged."""
    return zlib.crc32(f"{step}\0{stamp}\0{value}".encode())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """Return a digest of the code that makes values, which are of no use to another version of it."""
    root = Path(__file__).parents[1]
    found = [(str(path.relative_to(root)), path.stat()) for path in sorted(root.rglob("*.py"))]
    return _digest(repr([(name, about.st_size, about.st_mtime_ns) for name, about in found]))
