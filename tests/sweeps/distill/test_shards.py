"""Caches at scale: many writers, shards verified as they are touched, reading ahead, buckets, old shards."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling.errors import MissingExtra
from sweeps.distill.caches import compression, read_ahead, shard_cache, shards
from sweeps.distill.caches.logit_format import TopK, packed_distributions
from sweeps.distill.caches.shard_cache import Numbers, ShardCache, Writer
from sweeps.distill.caches.sparse_formats import CompactTop, Sampled
from sweeps.store.store import Store

V, CONTEXT, BLOCKS = 50, 8, 60
NUMBERS = np.random.default_rng(0).permutation(1000)[:BLOCKS]
"""Blocks in the order in which they are read first."""
FORMATS = [CompactTop(V, 8, 0.9, 8), Sampled(V, 12)]


@pytest.fixture(autouse=True)
def five_blocks_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 5 * CompactTop(V, 8, 0.9, 8).most_bytes(CONTEXT)
    monkeypatch.setattr(shard_cache, "SHARD_BYTES", size)


class Teacher:
    """Says something else of every block, and counts the blocks it was asked about."""

    def __init__(self, how: Any, dies_after: int = BLOCKS) -> None:
        self.how, self.asked, self.dies_after = how, [], dies_after  # type: ignore[var-annotated]

    def __call__(self, numbers: Numbers) -> NDArray[np.void]:
        if len(self.asked) >= self.dies_after:
            os._exit(9)
        self.asked += numbers.tolist()
        rows = [packed_distributions(self.how, said(number), 3, [number]) for number in numbers.tolist()]
        return np.stack(rows)


def said(number: int) -> Tensor:
    draw = torch.Generator().manual_seed(number)
    return torch.log_softmax(2 * torch.randn(CONTEXT, V, generator=draw), -1)


def cache(store: Store, how: Any = FORMATS[0], writer: Writer = shard_cache.ALONE) -> ShardCache:
    return ShardCache(store, "key", how, CONTEXT, NUMBERS, writer=writer)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "key" / "logits").glob("*.bin"))


@pytest.mark.parametrize("how", FORMATS, ids=str)
@pytest.mark.parametrize("root", ["disk", "memory://shards"])
def test_blocks_are_read_in_any_order(tmp_path: Path, how: Any, root: str) -> None:
    store = Store(tmp_path if root == "disk" else f"{root}-{how}")
    cache(store, how).ready(Teacher(how))
    found = cache(store, how).ready(lambda _: pytest.fail("nothing is missing"))
    assert found.shards > 4
    for _ in range(3):
        some = np.random.default_rng(1).permutation(NUMBERS)[:20]
        assert found.of(some).tobytes() == Teacher(how)(some).tobytes()
    with pytest.raises(AssertionError, match="for other blocks"):
        found.of(np.array([NUMBERS.max() + 1]))


def test_of_a_bucket_little_is_held_and_each_shard_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("memory://bucket")
    cache(store).ready(Teacher(FORMATS[0]))
    found, fetched = cache(store).ready(Teacher(FORMATS[0])), []
    whole = ShardCache.whole
    monkeypatch.setattr(ShardCache, "whole", lambda self, n: fetched.append(n) or whole(self, n))
    found.of(NUMBERS[:7])
    assert fetched == [0, 1]  # of no other shard anything
    for epoch in range(2):
        for some in np.random.default_rng(epoch).permutation(NUMBERS).reshape(-1, 6):
            assert found.of(some).tobytes() == Teacher(FORMATS[0])(some).tobytes()
            assert len(found._held) <= shards.HELD
    assert sorted(fetched) == list(range(found.shards))


@pytest.mark.parametrize("damage", ["a flipped bit", "another shard's", "cut", "gone"])
def test_damage_is_found_when_its_shard_is_touched_and_mended_in_the_same_bytes(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = Teacher(FORMATS[0])
    cache(Store(tmp_path)).ready(teacher)
    found = cache(Store(tmp_path)).ready(teacher)
    path, data = files(tmp_path)[2], files(tmp_path)[2].read_bytes()
    path.unlink()
    if damage == "another shard's":
        shutil.copy(files(tmp_path)[0], path)
    elif damage != "gone":
        changed = bytearray(data)
        changed[40] ^= 1
        path.write_bytes(changed[:100] if damage == "cut" else changed)
    teacher.asked.clear()
    each = found.each
    found.of(NUMBERS[: 2 * each])
    assert not teacher.asked  # that shard was not touched
    found.read_ahead(iter([NUMBERS[2 * each : 2 * each + 2]]))
    expected = Teacher(FORMATS[0])(NUMBERS[2 * each : 2 * each + 2])
    assert found.of(NUMBERS[2 * each : 2 * each + 2]).tobytes() == expected.tobytes()
    assert teacher.asked == NUMBERS[2 * each : 3 * each].tolist()
    assert path.read_bytes() == data
    assert caplog.messages == [f"{path}: damaged or gone; it is written again"]


def _write(root: str, rank: int, dies_after: int, asked: Any) -> None:
    torch.set_num_threads(1)
    teacher = Teacher(FORMATS[0], dies_after)
    cache(Store(root), writer=Writer(rank, 3, holds_step=True)).ready(teacher)
    asked.put((rank, teacher.asked))


def test_two_write_at_once_and_take_over_what_a_killed_one_left(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    asked = context.Queue()

    def writer(rank: int, life: int) -> Any:
        found = context.Process(target=_write, args=(str(tmp_path), rank, life, asked))
        found.start()
        return found

    killed = writer(2, 5)  # within its second shard
    killed.join()
    writers = [writer(rank, BLOCKS) for rank in range(2)]
    written = [block for _ in writers for block in asked.get(timeout=120)[1]]
    for each in writers:
        each.join()
    assert [each.exitcode for each in (killed, *writers)] == [9, 0, 0]
    assert len(written) == len(set(written)) == BLOCKS - 5  # nothing twice
    whole = tmp_path / "whole"
    cache(Store(whole)).ready(Teacher(FORMATS[0]))
    assert [path.read_bytes() for path in files(tmp_path)] == [path.read_bytes() for path in files(whole)]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_writers_begin_with_parts_of_their_own_and_reach_all(size: int) -> None:
    orders = [Writer(rank, size).order(5) for rank in range(size)]
    assert all(sorted(order) == list(range(5)) for order in orders)
    assert len({order[0] for order in orders}) >= min(size, 5) - 1


def test_what_comes_is_read_ahead_and_never_more_than_a_few_batches() -> None:
    batches, read = [np.array([number]) for number in range(20)], []

    def reading(numbers: Numbers) -> Any:
        read.append(int(numbers[0]))
        return numbers * 2

    ahead = read_ahead.ReadAhead(reading, iter(batches))
    for taken in range(20):
        found = ahead.take(batches[taken])
        assert found is not None
        assert found.tolist() == [2 * taken]
        assert len(ahead.coming) <= read_ahead.BATCHES
        assert len(read) <= taken + 1 + read_ahead.BATCHES
        assert ahead.take(np.array([99])) is None  # another batch is read at once, by who asks
    assert read == list(range(20))
    assert ahead.take(batches[0]) is None
    pairs = read_ahead.ReadAhead(lambda numbers: numbers * 2, iter([np.array([1, 2]), np.array([4, 3])]))
    found = pairs.batch_with(np.array([3]))  # of a micro-batch, of the batch after next
    assert found is not None
    assert (found[0].tolist(), found[1].tolist()) == ([4, 3], [8, 6])
    assert pairs.batch_with(np.array([3])) is None
    large = read_ahead.ReadAhead(reading, iter(batches), block_bytes=read_ahead.BYTES // 2)
    assert len(large.coming) == 2
    assert [read_ahead.batches_ahead(size) for size in (0, 1e6, 1e12)] == [4, 4, 1]


def test_a_shard_as_it_was_written_before_is_read(tmp_path: Path) -> None:
    """Top-k in whole bytes: rows of all blocks, ascending, then SHA-256 of place and rows."""
    how, numbers = TopK(V, 8), np.sort(NUMBERS)
    one = replace(cache(Store(tmp_path), how), numbers=numbers)
    rows = Teacher(how)(numbers)
    (tmp_path / "key" / "logits").mkdir(parents=True)
    for shard in range(one.shards):
        place = f"key/logits/{shard:05d}.bin"
        data = rows[shard * one.each : (shard + 1) * one.each].tobytes()
        (tmp_path / place).write_bytes(data + hashlib.sha256(place.encode() + data).digest())
    found = one.ready(lambda _: pytest.fail("nothing is missing"))
    assert found.of(NUMBERS).tobytes() == Teacher(how)(NUMBERS).tobytes()


def test_without_pyarrow_compact_formats_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    compression._zstd.cache_clear()
    with pytest.raises(
        MissingExtra, match=r"logits: a compact cache needs pyarrow: pip install .distlaw\[parquet\]."
    ):
        cache(Store(tmp_path)).ready(Teacher(FORMATS[0]))
    compression._zstd.cache_clear()
