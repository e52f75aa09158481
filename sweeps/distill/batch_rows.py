"""Rows that a target reads of one batch, micro-batch by micro-batch, for all runs that learn from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from torch import Tensor

from sweeps.spec.method.run_views import TargetReader, TrainingBatch


class BatchRows:
    """Rows of one batch, read when a micro-batch needs them, so that no device holds those of all.

    Where several runs share a batch, the host keeps the rows for those after the first: a cohort pays its
    teacher's pass once if its members have micro-batches of one size.
    """

    def __init__(
        self,
        target: TargetReader,
        inputs: Tensor,
        numbers: Tensor,
        *,
        shared: bool,
        timer: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Read nothing yet.

        Args:
            target: Whose rows.
            inputs: Tokens, ``(batch, context)``.
            numbers: Which blocks of the stream they are, ``(batch,)``.
            shared: True if several runs learn from the batch.
            timer: Counts the time of reading.
        """
        self.target, self.inputs, self.numbers, self.shared, self.timer = (
            target,
            inputs,
            numbers,
            shared,
            timer,
        )
        self._kept: dict[tuple[int, int], Tensor] = {}

    def of(self, first: int, end: int) -> Tensor:
        """Return the rows of the blocks from ``first`` to before ``end``, ``(blocks * context, ...)``."""
        with self.timer():
            if (kept := self._kept.get((first, end))) is not None:
                return kept.to(self.inputs.device)
            rows = self.target.rows(self.inputs[first:end], self.numbers[first:end])
            if self.shared:
                self._kept[first, end] = rows.cpu()
            return rows


def micro_batches(
    batch: TrainingBatch, count: int, rows: BatchRows | None = None
) -> Iterator[tuple[TrainingBatch, float]]:
    """Yield ``batch`` in ``count`` parts, the last perhaps smaller, with their ``rows`` and shares of it."""
    blocks, first = len(batch.blocks), 0
    for piece in batch.pieces(math.ceil(blocks / count)):
        end = first + len(piece.blocks)
        yield (replace(piece, rows=rows.of(first, end)) if rows else piece), len(piece.blocks) / blocks
        first = end
