"""Shards of what a teacher gives over a token stream: written once, by any number of processes, read by all.

::

    store/<id>/logits/00000.bin     what there is of some blocks of the stream, then a checksum;
                                    or texts/ or features/
    store/<id>/logits/claims/       who writes which shard, while they are written

A shard is written aside and moved into place, and says itself whether it is whole. A writer claims a shard as
an attempt at a step is claimed (:mod:`sweeps.store.leases`), so that two never write one, and the shards of a
writer that was killed are taken over. Whoever touches a shard that is damaged writes it again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.distill.caches.shard_layout import CHECKSUM_BYTES, Recorded, ShardLayout
from sweeps.distill.caches.shards import Shards
from sweeps.model.distributed import World
from sweeps.store.leases import LeaseWatch, hold_leases
from sweeps.store.store import Store

__all__ = [
    "CHECKSUM_BYTES",
    "Kept",
    "Numbers",
    "Recorded",
    "ShardCache",
    "Shards",
    "Teach",
    "Writer",
    "Wrote",
]

SHARD_BYTES = 2**26
"""Bytes of a shard, at most; of compact formats before they are compressed."""
POLL_SECONDS = 0.1
"""Seconds between two looks at shards that others are writing."""

Kept = Literal["logits", "texts", "features", "scores"]
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
class Writer:
    """One of the processes that write a cache together: first its own part, then what others have left."""

    rank: int = 0
    size: int = 1
    holds_step: bool = False
    """True if the processes hold the lease of the step that writes, so that no others write the cache."""
    together: World | None = None
    """The processes, if the teacher is sharded over them: they ask it about as many blocks at once."""

    @property
    def alone(self) -> bool:
        """True if no other process writes the cache, and shards need no claims."""
        return self.holds_step and self.size == 1

    def order(self, shards: int) -> list[int]:
        """Return the order in which it looks for shards to write: its own, then others' from their ends."""
        first, last = (shards * rank // self.size for rank in (self.rank, self.rank + 1))
        others = [*range(last, shards), *range(first)]
        return [*range(first, last), *reversed(others)]


ALONE = Writer()


@dataclass(frozen=True)
class ShardCache:
    """The shards of one cache."""

    store: Store
    key: str
    """The step that writes it: names the teacher, the stream, and how distributions are kept."""
    kept: Recorded
    context: int
    numbers: Numbers
    """Numbers of the blocks, in the order in which they lie in the shards."""
    what: Kept = "logits"
    writer: Writer = ALONE
    most_blocks: int | None = None
    """Blocks of a shard, at most, where its bytes alone would let too much be lost with a writer."""

    def ready(self, teach: Teach, wrote: Wrote | None = None) -> Shards:
        """Return the whole cache; shards that are missing, or of another length, are written first.

        Checksums are verified as shards are touched; one that is wrong is written then.

        Args:
            teach: asks the teacher.
            wrote: is told after each shard that was.

        Raises:
            InputError: if the disk has no room for it.
        """
        missing = self._missing()
        self._check_room(missing)
        if world := self.writer.together:
            self._write_together(world, teach, wrote)
            return Shards(self, lambda shard: self._mend(shard, teach))
        began, watch = bool(missing), LeaseWatch(self.store)
        while missing:
            there = len(self.numbers) - sum(map(self.blocks_in, missing))
            for shard in self.writer.order(self.shards):
                if shard in missing and self._write(shard, teach, watch, self._is_missing):
                    missing.remove(shard)
                    there += self.blocks_in(shard)
                    if wrote:
                        wrote(there, len(self.numbers))
            if missing:  # others write these
                time.sleep(POLL_SECONDS)
            missing = self._missing()
        if began and self.writer.rank == 0 and not self.writer.alone:
            self._forget_claims()
        return Shards(self, lambda shard: self._mend(shard, teach))

    @property
    def layout(self) -> ShardLayout:
        """Layout of a shard."""
        return ShardLayout(self.kept, self.context)

    @property
    def each(self) -> int:
        """Blocks in a shard; the last may have fewer."""
        fit = max(1, SHARD_BYTES // self.layout.block_bytes)
        return min(fit, self.most_blocks or fit)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self.numbers) // self.each)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the shards that are there, as they are compressed, with their checksums."""
        return sum(_lengths(self.store, self.key, self.what).values())

    def blocks_in(self, shard: int) -> int:
        """Return the number of blocks in a shard."""
        return len(self._numbers(shard))

    def path(self, shard: int) -> str:
        """Return where a shard lies."""
        return "/".join((self.store.path, *self._place(shard)))

    def whole(self, shard: int) -> memoryview | None:
        """Return the content of a shard, mapped if the store is local; None if it is missing or damaged."""
        known = _identity(Path(self.path(shard))) if self.store.local else None
        view = self._mapped(shard) if self.store.local else self._fetched(shard)
        if view is None:
            return None
        if known in _VERIFIED or self.layout.is_whole(self._place(shard), view, self.blocks_in(shard)):
            if known:
                _VERIFIED.add(known)
            return view
        return None

    def _numbers(self, shard: int) -> Numbers:
        return self.numbers[shard * self.each : (shard + 1) * self.each]

    def _place(self, shard: int) -> tuple[str, str, str]:
        return self.key, self.what, f"{shard:05d}.bin"

    def _missing(self) -> set[int]:
        """Return the shards that are not there, or have another length than they can have."""
        there = _lengths(self.store, self.key, self.what)
        return {
            shard
            for shard in range(self.shards)
            if not self.layout.may_be(there.get(self._place(shard)[-1], 0), self.blocks_in(shard))
        }

    def _is_missing(self, shard: int) -> bool:
        try:
            length = self.store.files.info(self.path(shard))["size"]
        except FileNotFoundError:
            return True
        return not self.layout.may_be(length, self.blocks_in(shard))

    def _write(self, shard: int, teach: Teach, watch: LeaseWatch, needed: Callable[[int], bool]) -> bool:
        """Write a shard unless another process is writing it, or has; return False if one is."""
        if self.writer.alone:
            self._write_now(shard, teach)
            return True
        if not needed(shard):
            return True
        claim = f"{self.key}/{self.what}/claims/{shard:05d}"
        number = watch.claimable(claim)
        if number is None:
            return False
        with ExitStack() as stack:
            try:
                leases = stack.enter_context(hold_leases(self.store, [claim], {claim: number}))
            except FileNotFoundError:  # claims were just removed by a process that found the cache complete
                return False
            if claim not in leases:
                return False
            if needed(shard):
                self._write_now(shard, teach)
            leases[claim].look()
            leases[claim].conclude(None)
        return True

    def _write_together(self, world: World, teach: Teach, wrote: Wrote | None) -> None:
        """Write the missing shards, one a process at a time; all processes call it.

        Those that have no shard of their own left, or a shorter one, ask about blocks that they do not keep.
        """
        missing = sorted(world.gathered(self._missing())[0])
        there = len(self.numbers) - sum(map(self.blocks_in, missing))
        for first in range(0, len(missing), world.size):
            some = missing[first : first + world.size]
            shard, size = some[min(world.rank, len(some) - 1)], max(map(self.blocks_in, some))
            rows = teach(np.resize(self._numbers(shard), size))[: self.blocks_in(shard)]
            if world.rank < len(some):
                place = self._place(shard)
                self.store.write_bytes(self.layout.shard(place, rows), *place)
            there += sum(map(self.blocks_in, some))
            if wrote:
                wrote(there, len(self.numbers))
        world.any(False)  # all shards are there

    def _write_now(self, shard: int, teach: Teach) -> None:
        place = self._place(shard)
        self.store.write_bytes(self.layout.shard(place, teach(self._numbers(shard))), *place)

    def _mend(self, shard: int, teach: Teach) -> None:
        """Write a damaged shard again, or wait for another process that does."""
        watch = LeaseWatch(self.store)
        while not self._write(shard, teach, watch, lambda shard: self.whole(shard) is None):
            time.sleep(POLL_SECONDS)
        self._forget_claims()

    def _forget_claims(self) -> None:
        with suppress(OSError):  # another process removes them too, or claims a shard to look at it
            self.store.remove_tree(self.key, self.what, "claims")

    def _mapped(self, shard: int) -> memoryview | None:
        try:
            return np.memmap(self.path(shard), dtype=np.uint8, mode="r").data
        except (OSError, ValueError):  # missing, or empty
            return None

    def _fetched(self, shard: int) -> memoryview | None:
        data = self.store.read_bytes(*self._place(shard))
        return None if data is None else memoryview(data)

    def _check_room(self, missing: Iterable[int]) -> None:
        if not self.store.local:
            return
        needed = sum(map(self.blocks_in, missing)) * self.layout.block_bytes
        self.store.create()
        free = shutil.disk_usage(self.store.path).free
        if needed > free:
            raise InputError(
                f"{self.store.path}: the teacher's {self.what} need {needed:,} bytes more there, and the "
                f"disk has {free:,} left; make room{INSTEAD.get(self.what, '')}"
            )


def _lengths(store: Store, *place: str) -> dict[str, int]:
    """Return the lengths of the shards in a directory of the store by name."""
    try:
        found = store.files.ls("/".join((store.path, *place)), detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    names = ((each["name"].rpartition("/")[-1], each["size"] or 0) for each in found)
    return {name: size for name, size in names if name.endswith(".bin")}


_VERIFIED: set[tuple[object, ...] | None] = set()
"""Files whose checksums this process has seen to be right."""


def _identity(path: Path) -> tuple[object, ...] | None:
    """Names a file with its content as it is, as far as can be told without reading it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return path, found.st_ino, found.st_size, found.st_mtime_ns
