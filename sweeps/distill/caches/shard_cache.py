"""Shards of what a teacher gives over a token stream: written once, mapped by every student.

::

    store/<id>/logits/00000.bin     what there is of some blocks of the stream, then a checksum;
                                    or texts/ or features/

A shard is written aside and moved into place, and says itself whether it is whole. So any number of readers
and writers can meet here: a shard that is missing or damaged is written by whoever finds that first.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.data.cache import cache_dir
from sweeps.store.store import Store

SHARD_BYTES = 2**26
CHECKSUM_BYTES = 32

Kept = Literal["logits", "texts", "features"]
"""Content of a cache, and the folder of its shards in the step's."""
INSTEAD = {
    "logits": ", or let the method have logits: top-k or online",
    "features": ", or let the auxiliary loss have cache: bf16, or none",
}
"""Advice that takes less room, by content."""

Numbers = NDArray[np.int64]
"""Numbers of blocks of the stream."""
Teach = Callable[[Numbers], NDArray[np.void]]
"""Function from numbers of blocks to what is kept of them, ``(blocks, context)``."""
Wrote = Callable[[int, int], None]
"""Told how many blocks are there, of how many."""


@dataclass(frozen=True, slots=True)
class Shards:
    """Shards over some blocks of a token stream, mapped into memory."""

    numbers: Numbers
    """Numbers of the blocks, ascending."""
    each: int
    """Blocks in a shard."""
    shards: list[NDArray[np.void]]
    """Each ``(blocks, context)``."""

    def of(self, numbers: Numbers, field: str | None = None) -> NDArray[Any]:
        """Return what is kept of the given blocks, ``(blocks, context)``, or one field of it."""
        places = np.searchsorted(self.numbers, numbers)
        assert np.array_equal(self.numbers[places], numbers), "the cache was made for other blocks"
        rows = (self.shards[place // self.each][place % self.each] for place in places.tolist())
        return np.stack([row if field is None else row[field] for row in rows])


class Recorded(Protocol):
    """A way to write down what there is of a token."""

    @property
    def dtype(self) -> np.dtype:
        """Layout of one token on disk."""


@dataclass(frozen=True)
class ShardCache:
    """The shards of one cache."""

    store: Store
    key: str
    """The step that writes it: names the teacher, the stream, and how distributions are kept."""
    kept: Recorded
    context: int
    numbers: Numbers
    """Numbers of the blocks, ascending."""
    what: Kept = "logits"

    def ready(self, teach: Teach, wrote: Wrote | None = None) -> Shards:
        """The whole cache; shards that are missing or damaged are written first.

        Args:
            teach: asks the teacher.
            wrote: is told after each shard that was.

        Raises:
            InputError: if the disk has no room for it.
        """
        missing = [shard for shard in range(self.shards) if not self._intact(shard)]
        self._check_room(missing)
        there = len(self.numbers) - sum(len(self._numbers(shard)) for shard in missing)
        for shard in missing:
            self._write(shard, teach)
            there += len(self._numbers(shard))
            if wrote:
                wrote(there, len(self.numbers))
        return Shards(self.numbers, self.each, [self._mapped(shard) for shard in range(self.shards)])

    @property
    def each(self) -> int:
        """Blocks in a shard; the last may have fewer."""
        return max(1, SHARD_BYTES // self._block_bytes)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self.numbers) // self.each)

    @property
    def _block_bytes(self) -> int:
        return self.context * self.kept.dtype.itemsize

    @cached_property
    def _here(self) -> Store:
        """Store that shards are mapped from: the store itself, or copies of it on this machine."""
        return self.store if self.store.local else Store(cache_dir() / "logits")

    def _numbers(self, shard: int) -> Numbers:
        return self.numbers[shard * self.each : (shard + 1) * self.each]

    def _place(self, shard: int) -> tuple[str, str, str]:
        return self.key, self.what, f"{shard:05d}.bin"

    def _path(self, shard: int) -> Path:
        return Path(self._here.path, *self._place(shard))

    def _intact(self, shard: int) -> bool:
        """Return True if the shard is here and whole; from a store elsewhere it is fetched."""
        if (as_it_is := _identity(self._path(shard))) and as_it_is in _VERIFIED:
            return True
        whole = self._whole(shard, self._here.read_bytes(*self._place(shard)))
        if not whole and not self.store.local:
            data = self.store.read_bytes(*self._place(shard))
            if whole := self._whole(shard, data):
                self._here.write_bytes(data or b"", *self._place(shard))
        if whole:
            _VERIFIED.add(_identity(self._path(shard)))
        return whole

    def _whole(self, shard: int, data: bytes | None) -> bool:
        length = len(self._numbers(shard)) * self._block_bytes
        if data is None or len(data) != length + CHECKSUM_BYTES:
            return False
        view = memoryview(data)
        return self._checksum(shard, view[:length]) == view[length:]

    def _checksum(self, shard: int, data: bytes | memoryview) -> bytes:
        digest = hashlib.sha256("/".join(self._place(shard)).encode())
        digest.update(data)
        return digest.digest()

    def _write(self, shard: int, teach: Teach) -> None:
        data = teach(self._numbers(shard)).tobytes()
        data += self._checksum(shard, data)
        for store in {self.store, self._here}:
            store.write_bytes(data, *self._place(shard))

    def _mapped(self, shard: int) -> NDArray[np.void]:
        shape = len(self._numbers(shard)), self.context
        return np.memmap(self._path(shard), dtype=self.kept.dtype, mode="r", shape=shape)

    def _check_room(self, missing: list[int]) -> None:
        needed = sum(len(self._numbers(shard)) for shard in missing) * self._block_bytes
        self._here.create()
        free = shutil.disk_usage(self._here.path).free
        if needed > free:
            raise InputError(
                f"{self._here.path}: the teacher's {self.what} need {needed:,} bytes more there, and the "
                f"disk has {free:,} left; make room{INSTEAD.get(self.what, '')}"
            )


_VERIFIED: set[tuple[object, ...] | None] = set()
"""Files whose checksums this process has seen to be right."""


def _identity(path: Path) -> tuple[object, ...] | None:
    """Names a file with its content as it is, as far as can be told without reading it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return path, found.st_ino, found.st_size, found.st_mtime_ns
