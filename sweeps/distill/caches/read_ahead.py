"""Reading ahead: a thread reads what the next batches need while the present one is trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCHES = 4
"""Batches that are read ahead and held, at most."""

Rows = NDArray[Any]


class ReadAhead:
    """Batches that are being read, in the order in which they will be asked for.

    Args:
        read: Reads the given blocks.
        order: Numbers of the blocks of each batch to come.
    """

    def __init__(self, read: Callable[[NDArray[np.int64]], Rows], order: Iterator[NDArray[np.int64]]) -> None:
        self.read, self.order = read, order
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self.coming: deque[tuple[NDArray[np.int64], Future[Rows]]] = deque()
        self._fill()

    def take(self, numbers: NDArray[np.int64]) -> Rows | None:
        """Return the rows of these blocks if they come next and could be read, else None."""
        if not self.coming or not np.array_equal(self.coming[0][0], numbers):
            return None
        _, future = self.coming.popleft()
        self._fill()
        return None if future.exception() else future.result()

    def close(self) -> None:
        """Read no further."""
        self.coming.clear()
        self.thread.shutdown(wait=False, cancel_futures=True)

    def _fill(self) -> None:
        for numbers in islice(self.order, BATCHES - len(self.coming)):
            self.coming.append((numbers, self.thread.submit(self.read, numbers)))
        if not self.coming:
            self.close()
