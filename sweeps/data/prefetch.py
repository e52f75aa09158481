"""Batches read ahead of training, by a thread, into memory that a GPU copies from."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from sweeps.data.batches import Batches

COLD_BYTES = 2**30
"""Bytes of tokens from which they may not stay in memory, so that a CPU run reads ahead too."""

Loader = Callable[[int], tuple[Tensor, Tensor]]
"""Function from a step to the numbers of its blocks, and the blocks on the device."""


def loader(
    data: Batches,
    read: Callable[[Tensor], Tensor],
    share: Callable[[Tensor], Tensor],
    device: torch.device,
    *,
    ahead: bool | None = None,
) -> Loader:
    """Return the function that loads the batch of a step.

    Args:
        data: Order of the blocks.
        read: Function from their numbers to the blocks.
        share: Function from the numbers of a batch to those that this process computes.
        device: Device of the blocks.
        ahead: Read the next batch while the step runs; by default for a GPU, and for many tokens.
    """
    pinned = device.type == "cuda"

    def load(step: int) -> tuple[Tensor, Tensor]:
        numbers = share(data.numbers(step))
        blocks = read(numbers)
        return numbers, blocks.pin_memory() if pinned else blocks

    if ahead is None:
        ahead = pinned or data.tokens.nbytes >= COLD_BYTES
    ready = PrefetchedLoader(load) if ahead else load

    def loaded(step: int) -> tuple[Tensor, Tensor]:
        numbers, blocks = ready(step)
        return numbers, blocks.to(device, non_blocking=pinned)

    return loaded


class PrefetchedLoader:
    """Loader that has the next step's batch read by a thread; errors are raised at that step."""

    def __init__(self, load: Loader) -> None:
        self.load = load
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[tuple[Tensor, Tensor]]] | None = None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of ``step``, and begin to read that of the next."""
        if self._next and self._next[0] == step:
            found = self._next[1].result()
        else:
            found = self._thread.submit(self.load, step).result()
        self._next = step + 1, self._thread.submit(self.load, step + 1)
        return found
