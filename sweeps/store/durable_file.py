"""A file that is complete before it has its name."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

Chunks = Iterable[bytes | memoryview]
"""Content of a file, in order."""


def linked_once(scratch: Path, path: str) -> bool:
    """Give a file a second name that does not exist; False if another process was first.

    If NFS loses the answer and retries, the name exists, and it is this file's (``open(2)``).
    """
    try:
        os.link(scratch, path)
    except FileExistsError:
        return scratch.stat().st_nlink > 1
    return True


@contextmanager
def written_beside(path: Path, data: bytes | Chunks, durable: bool) -> Iterator[Path]:
    """Yield a complete temporary file beside ``path`` with the data; it is removed afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with scratch.open("xb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)
