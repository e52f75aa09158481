"""Layout of a run on its devices: what is sharded, how a batch is split, what is computed twice."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Layout:
    """Layout of a run on its devices. It changes losses by no more than rounding, and is no part of an id.

    The default is the lean path: weights, moments and gradients whole on every device, and each process's
    share of a batch in one piece.
    """

    sharded: bool = False
    """True to shard weights, moments and gradients over the processes (FSDP2), one block at a time."""
    micro_batch_tokens: float | None = None
    """Tokens that a process takes forward and backward at once; None for its whole share of a batch."""
    recompute: bool = False
    """True to keep only the inputs of blocks and recompute the rest in the backward pass."""
    reason: str = ""
    """Reason for the choice, as a sentence without a full stop, for logs and ``sweep plan``."""

    def micro_batches(self, blocks: int, context: int) -> int:
        """Return into how many micro-batches ``blocks`` blocks of ``context`` tokens are split."""
        if self.micro_batch_tokens is None:
            return 1
        at_once = max(1, math.floor(self.micro_batch_tokens / context))
        return max(1, math.ceil(blocks / at_once))

    def halved(self, blocks: int, context: int) -> Layout:
        """Return the layout with micro-batches half as large, of at least one block of ``context`` tokens.

        Args:
            blocks: Blocks of a batch that each process takes.
            context: Tokens of a block.
        """
        at_once = math.ceil(blocks / self.micro_batches(blocks, context))
        return replace(self, micro_batch_tokens=float(max(1, at_once // 2) * context))
