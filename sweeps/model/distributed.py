"""Data-parallel training: each process computes its share of every batch, and gradients are summed.

``torchrun`` starts the processes, or any launcher that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from scaling.errors import InputError
from sweeps.model.device import device


@dataclass(frozen=True, slots=True)
class World:
    """Processes that train one model together, by default one."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """True for the process that writes results."""
        return self.rank == 0

    def share(self, blocks: Tensor) -> Tensor:
        """Return the blocks of a batch that this process computes.

        Raises:
            InputError: if the batch cannot be split evenly.
        """
        if len(blocks) % self.size:
            raise InputError(
                f"training.batch_tokens: a batch of {len(blocks)} blocks cannot be split evenly over "
                f"{self.size} processes; use a number of processes that divides it"
            )
        return blocks.chunk(self.size)[self.rank]

    def total(self, share: Tensor) -> Tensor:
        """Sum ``share`` over all processes, in place, and return it."""
        if self.size > 1:
            distributed.all_reduce(share)
        return share


@contextmanager
def world() -> Iterator[World]:
    """Join the processes that the environment describes, with gloo on CPUs and NCCL on GPUs."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if device().type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device().type == "cuda" else "gloo")
    try:
        yield World(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
