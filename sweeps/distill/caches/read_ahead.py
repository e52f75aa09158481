"""Reading ahead: a thread reads what the next batches need while the present one is trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCHES, BYTES = 4, 2**28
"""Batches that are read ahead and held, and bytes of them, at most; one of any size."""

Rows = NDArray[Any]


class ReadAhead:
    """Batches that are being read, in the order in which they will be asked for.

    Args:
        read: Reads the given blocks.
        order: Numbers of the blocks of each batch to come.
        block_bytes: Bytes of a block in memory.
    """

    def __init__(
        self,
        read: Callable[[NDArray[np.int64]], Rows],
        order: Iterator[NDArray[np.int64]],
        block_bytes: int = 0,
    ) -> None:
        first = list(islice(order, 1))
        self.read, self.order = read, chain(first, order)
        self.batches = batches_ahead(block_bytes * sum(map(len, first)))
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self.coming: deque[tuple[NDArray[np.int64], Future[Rows]]] = deque()
        self._fill()

    def take(self, numbers: NDArray[np.int64]) -> Rows | None:
        """Return the rows of these blocks if they come next and could be read, else None."""
        if not self.coming or not np.array_equal(self.coming[0][0], numbers):
            return None
        found = self.batch_with(numbers)
        return found and found[1]

    def batch_with(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], Rows] | None:
        """Return the first batch to come that has these blocks and could be read, else None."""
        has = (place for place, (batch, _) in enumerate(self.coming) if np.isin(numbers, batch).all())
        if (place := next(has, None)) is None:
            return None
        batch, future = [self.coming.popleft() for _ in range(place + 1)][-1]
        failed = future.exception()  # waits, as filling ends the thread after the last batch
        self._fill()
        return None if failed else (batch, future.result())

    def close(self) -> None:
        """Read no further."""
        self.coming.clear()
        self.thread.shutdown(wait=False, cancel_futures=True)

    def _fill(self) -> None:
        for numbers in islice(self.order, self.batches - len(self.coming)):
            self.coming.append((numbers, self.thread.submit(self.read, numbers)))
        if not self.coming:
            self.close()


def batches_ahead(batch_bytes: float) -> int:
    """Return how many batches of so many bytes are read ahead."""
    return int(min(BATCHES, max(1, BYTES // max(1.0, batch_bytes))))
