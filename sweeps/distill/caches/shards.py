"""Reading a cache: blocks in any order, each shard verified when it is first touched."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sweeps.distill.caches.read_ahead import ReadAhead
from sweeps.distill.caches.shard_layout import Ends

if TYPE_CHECKING:
    from sweeps.distill.caches.shard_cache import Numbers, ShardCache

HELD = 2
"""Shards of a store elsewhere that are held in memory, at most; of others, blocks are read one by one."""
LOG = logging.getLogger("distlaw")


class DamagedShard(Exception):
    """A shard is missing, or its checksum is wrong."""


class Shards:
    """Shards over some blocks of a token stream: mapped into memory, or read from a bucket as needed.

    Args:
        cache: The cache, complete but for damage.
        mend: Writes a damaged shard again, given its number.
    """

    def __init__(self, cache: ShardCache, mend: Callable[[int], None]) -> None:
        self.cache, self.mend = cache, mend
        self.numbers, self.each, self.shards = cache.numbers, cache.each, cache.shards
        self._sorted = np.argsort(self.numbers, kind="stable")
        self._ends: dict[int, Ends] = {}
        """Offsets of blocks in the shards that were verified."""
        self._held: dict[int, memoryview] = {}
        self._reading = threading.RLock()
        self._ahead: ReadAhead | None = None

    def of(self, numbers: Numbers) -> NDArray[Any]:
        """Return what is kept of the given blocks, ``(blocks, context)``.

        Raises:
            InputError: if a shard is damaged and cannot be written again.
        """
        if self._ahead and (found := self._ahead.take(numbers)) is not None:
            return found
        return self._rows(numbers, self.mend)

    def batch_with(self, numbers: Numbers) -> tuple[Numbers, NDArray[Any]]:
        """Return blocks and what is kept of them: of the batch read ahead that has these, else of these."""
        return (self._ahead and self._ahead.batch_with(numbers)) or (numbers, self._rows(numbers, self.mend))

    def read_ahead(self, order: Iterator[Numbers]) -> None:
        """Read the blocks of the batches to come in a thread, a few batches ahead.

        Args:
            order: Numbers of the blocks of each batch, in the order in which they will be asked for.
        """
        if self._ahead:
            self._ahead.close()
        cache = self.cache
        self._ahead = ReadAhead(self._rows, order, cache.context * cache.kept.dtype.itemsize)

    def _rows(self, numbers: Numbers, mend: Callable[[int], None] | None = None) -> NDArray[Any]:
        places = self._sorted[np.searchsorted(self.numbers, numbers, sorter=self._sorted) % len(self.numbers)]
        assert np.array_equal(self.numbers[places], numbers), "the cache was made for other blocks"
        with self._reading:
            for shard in dict.fromkeys((places // self.each).tolist()):
                if shard not in self._ends:
                    self._verify(shard, mend)
            data = self._blocks(places.tolist())
        return np.stack([self.cache.layout.block(each) for each in data])

    def _verify(self, shard: int, mend: Callable[[int], None] | None) -> None:
        data = self.cache.whole(shard)
        if data is None and mend:
            LOG.warning("%s: damaged or gone; it is written again", self.cache.path(shard))
            mend(shard)
            data = self.cache.whole(shard)
        if data is None:
            raise DamagedShard(self.cache.path(shard))
        self._ends[shard] = self.cache.layout.ends(data, self.cache.blocks_in(shard))
        self._held[shard] = data
        if not self.cache.store.local and len(self._held) > HELD:
            del self._held[next(iter(self._held))]

    def _blocks(self, places: list[int]) -> list[memoryview | bytes]:
        """Return the bytes of the blocks at these places of the cache, in one request those not held."""
        spans = [self._span(*divmod(place, self.each)) for place in places]
        asked = [span for span in spans if span[0] not in self._held]
        store, fetched = self.cache.store, iter(())
        if asked:
            names, begins, ends = zip(
                *((self.cache.path(n), begin, end) for n, begin, end in asked), strict=True
            )
            fetched = iter(
                store.files.cat_ranges(list(names), list(begins), list(ends), max_gap=None, on_error="raise")
            )
        return [
            self._held[shard][begin:end] if shard in self._held else next(fetched)
            for shard, begin, end in spans
        ]

    def _span(self, shard: int, row: int) -> tuple[int, int, int]:
        ends = self._ends[shard]
        return shard, int(ends[row]), int(ends[row + 1])
