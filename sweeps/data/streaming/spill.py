"""Shuffle of documents with bounded memory: buckets on disk by a keyed hash, each sorted when it is read.

The order is that of a hash of the content, keyed with the seed: it depends neither on the order of files nor
on that of documents in them, and exact duplicates are neighbors, of which one is kept.

A record of a bucket is the key (16 bytes), the length of the document (4, little-endian), and the document.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BUCKETS = 256
"""Buckets by the first byte of the key."""
KEY, HEADER = 16, 20
"""Bytes of the key, and of key and length."""
BUFFERED_BYTES = 2**25
"""Bytes of documents that are held in memory before they are written."""


class Spill:
    """Writer of the buckets in a directory, which continues after those of an earlier process.

    Args:
        folder: Directory of the buckets.
        seed: Seed of the order.
        sizes: Bytes of each bucket that count; what a killed process wrote behind them is cut off.
    """

    def __init__(self, folder: Path, seed: int, sizes: Sequence[int] = (0,) * BUCKETS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.sizes = folder, list(sizes)
        self._key = seed.to_bytes(8, "little")
        self._buffers = [bytearray() for _ in range(BUCKETS)]
        self._buffered = 0
        for number, size in enumerate(self.sizes):
            if bucket_size(folder, number) > size:
                os.truncate(bucket_file(folder, number), size)

    def add(self, document: bytes) -> None:
        """Add a document."""
        key = hashlib.blake2b(document, digest_size=KEY, key=self._key).digest()
        buffer = self._buffers[key[0]]
        buffer += key + len(document).to_bytes(4, "little")
        buffer += document
        self._buffered += HEADER + len(document)
        if self._buffered >= BUFFERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered."""
        for number, buffer in enumerate(self._buffers):
            if buffer:
                with bucket_file(self.folder, number).open("ab") as file:
                    file.write(buffer)
                self.sizes[number] += len(buffer)
                self._buffers[number] = bytearray()
        self._buffered = 0


def bucket_file(folder: Path, number: int) -> Path:
    """Return the file of a bucket."""
    return folder / f"{number:03d}"


def bucket_size(folder: Path, number: int) -> int:
    """Return the bytes of a bucket, which has no file while it is empty."""
    path = bucket_file(folder, number)
    return path.stat().st_size if path.exists() else 0


def sorted_documents(path: Path) -> Iterator[bytes]:
    """Yield the documents of a bucket in the order of their keys, each once.

    Memory is some 40 bytes a document: the bucket itself is memory-mapped.
    """
    size = path.stat().st_size if path.exists() else 0
    if not size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as bucket:
        starts = _starts(bucket, size)
        order = _order(bucket, starts)
        before = b""
        for start in starts[order].tolist():
            key = bucket[start : start + KEY]
            if key != before:
                yield bucket[start + HEADER : start + HEADER + _length(bucket, start)]
            before = key


def _length(bucket: mmap.mmap, start: int) -> int:
    return int.from_bytes(bucket[start + KEY : start + HEADER], "little")


def _starts(bucket: mmap.mmap, size: int) -> NDArray[np.uint64]:
    starts, position = array("Q"), 0
    while position < size:
        starts.append(position)
        position += HEADER + _length(bucket, position)
    if position != size:
        raise ValueError("torn bucket")
    return np.frombuffer(starts, dtype=np.uint64)


def _order(bucket: mmap.mmap, starts: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the order of the records by key."""
    keys = np.frombuffer(b"".join(bucket[s : s + KEY] for s in starts.tolist()), dtype=">u8").reshape(-1, 2)
    return np.lexsort((keys[:, 1], keys[:, 0]))
