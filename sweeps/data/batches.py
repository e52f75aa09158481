"""Training batches as a pure function of seed and step, without state to save."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Batches:
    """Random access to training batches of blocks of ``context + 1`` tokens, reshuffled every epoch.

    Args:
        tokens: the training stream.
        context: predicted tokens per block.
        batch: blocks per step.
        seed: order of the data.
        first: batches that come before those of step 0.
    """

    def __init__(
        self, tokens: NDArray[np.integer], *, context: int, batch: int, seed: int, first: int = 0
    ) -> None:
        self.tokens, self.context, self.batch, self.seed, self.first = tokens, context, batch, seed, first
        self.blocks = (len(tokens) - 1) // context
        self._shuffled = -1, np.empty(0, dtype=np.int64)

    @property
    def tokens_per_epoch(self) -> int:
        """Number of predicted tokens in one pass over the corpus."""
        return self.blocks * self.context

    def __getitem__(self, step: int) -> Tensor:
        """Return the batch of ``step``, ``(batch, context + 1)``: inputs, and targets shifted by one."""
        return self.read(self.numbers(step))

    def numbers(self, step: int) -> Tensor:
        """Return the numbers of the blocks in the batch of ``step``, ``(batch,)``."""
        begin = (self.first + step) * self.batch
        return self.numbers_of(range(begin, begin + self.batch))

    def read(self, numbers: Tensor) -> Tensor:
        """Return the given blocks, ``(len(numbers), context + 1)``."""
        return take_blocks(self.tokens, numbers.tolist(), self.context)

    def numbers_of(self, positions: range) -> Tensor:
        """Return the numbers of the blocks at the given positions of the order of the data."""
        return torch.tensor([self._block(position) for position in positions])

    def seen(self, steps: int) -> NDArray[np.int64]:
        """Return the numbers of the blocks in the batches up to step ``steps``, ascending."""
        drawn = min((self.first + steps) * self.batch, self.blocks)
        return np.sort([self._block(position) for position in range(drawn)])

    def last(self, count: int) -> Tensor:
        """Return the numbers of the last ``count`` blocks of the first epoch, or of all blocks."""
        return self.numbers_of(range(max(0, self.blocks - count), self.blocks))

    def _block(self, position: int) -> int:
        epoch, offset = divmod(position, self.blocks)
        known, order = self._shuffled  # together, as another thread may read ahead
        if epoch != known:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.blocks)
            self._shuffled = epoch, order
        return int(order[offset])


def take_blocks(tokens: NDArray[np.integer], blocks: list[int], context: int) -> Tensor:
    """Return the given blocks of ``tokens`` as ``(len(blocks), context + 1)`` int64."""
    rows = [tokens[block * context : block * context + context + 1] for block in blocks]
    return torch.from_numpy(np.stack(rows).astype(np.int64))


def heldout_batches(tokens: NDArray[np.integer], *, context: int, batch: int) -> Iterator[Tensor]:
    """Yield every whole block of held-out ``tokens`` once, in order, in batches."""
    blocks = list(range((len(tokens) - 1) // context))
    for start in range(0, len(blocks), batch):
        yield take_blocks(tokens, blocks[start : start + batch], context)
