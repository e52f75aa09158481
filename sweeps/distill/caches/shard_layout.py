"""Layout of a shard: blocks of the stream one after the other, and a checksum.

::

    fixed formats      block, block, ...; each of the same length
    compact formats    frame, frame, ...; then where each ends, 8 bytes a block
    both               SHA-256 of the shard's place in the store and of all before, 32 bytes
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sweeps.distill.caches.compression import compress, decompress
from sweeps.distill.caches.sparse_formats import CompactFormat

CHECKSUM_BYTES = 32
END_BYTES = 8

Ends = NDArray[np.int64]
"""Offsets at which blocks end in a shard, after a zero."""


class Recorded(Protocol):
    """A way to write down what there is of a token."""

    @property
    def dtype(self) -> np.dtype:
        """Layout of one token in memory, and on disk but for compact formats."""


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """Layout of the shards of a cache."""

    kept: Recorded
    context: int

    @property
    def block_bytes(self) -> int:
        """Bytes of a block; of a compact format the most, before it is compressed."""
        if isinstance(self.kept, CompactFormat):
            return self.kept.most_bytes(self.context)
        return self.context * self.kept.dtype.itemsize

    def shard(self, place: tuple[str, ...], rows: NDArray[np.void]) -> bytes:
        """Return the shard of ``rows`` ``(blocks, context)`` that lies at ``place`` in the store."""
        data = self._payload(rows)
        return data + _checksum(place, data)

    def is_whole(self, place: tuple[str, ...], data: memoryview, blocks: int) -> bool:
        """Return True if ``data`` is the shard of so many blocks that belongs at ``place``."""
        if not self.may_be(len(data), blocks):
            return False
        end = len(data) - CHECKSUM_BYTES
        return _checksum(place, data[:end]) == data[end:]

    def may_be(self, length: int, blocks: int) -> bool:
        """Return True if a shard of so many blocks can have ``length`` bytes."""
        length -= CHECKSUM_BYTES
        if isinstance(self.kept, CompactFormat):
            return length > blocks * END_BYTES
        return length == blocks * self.block_bytes

    def ends(self, data: memoryview, blocks: int) -> Ends:
        """Return where the blocks of a whole shard end, ``(blocks + 1,)``."""
        if not isinstance(self.kept, CompactFormat):
            return np.arange(blocks + 1) * self.block_bytes
        index = data[len(data) - CHECKSUM_BYTES - blocks * END_BYTES : len(data) - CHECKSUM_BYTES]
        return np.concatenate([[0], np.frombuffer(index, "<i8")])

    def block(self, data: memoryview | bytes) -> NDArray[np.void]:
        """Return the rows of one block, ``(context,)``."""
        if isinstance(self.kept, CompactFormat):
            return self.kept.decode(decompress(data), self.context)
        return np.frombuffer(data, self.kept.dtype)

    def _payload(self, rows: NDArray[np.void]) -> bytes:
        if not isinstance(self.kept, CompactFormat):
            return rows.tobytes()
        frames = [compress(self.kept.encode(block)) for block in rows]
        ends = np.cumsum([len(frame) for frame in frames], dtype="<i8")
        return b"".join([*frames, ends.tobytes()])


def _checksum(place: tuple[str, ...], data: bytes | memoryview) -> bytes:
    digest = hashlib.sha256("/".join(place).encode())
    digest.update(data)
    return digest.digest()
