"""SQLite databases, opened for reading only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from scaling.errors import InputError

MAGIC = b"SQLite format 3\x00"


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for reading.

    Raises:
        InputError: for one that is damaged, locked or lacks what is asked of it.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5)) as database:
            yield database
    except sqlite3.Error as error:
        raise InputError(f"{path}: not a readable database ({error})") from error


def table_names(path: Path) -> set[str]:
    """Return the names of a database's tables; none of a file that is no database."""
    try:
        with open_database(path) as database:
            rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except InputError:
        return set()
    return {str(row[0]) for row in rows}
