"""Data-parallel training: each process computes its share of every batch, and gradients are summed.

Processes that train one model are a gang. :mod:`sweeps.model.sharding` shards its weights.

``torchrun`` starts the processes, or any launcher that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import _get_default_store

from scaling.errors import InputError
from sweeps import environment
from sweeps.model.device import device
from sweeps.store.outcomes import Ending, Stopped

BUCKET = 2**24
"""Elements that one all-reduce sums: 64 MiB in float32."""
T = TypeVar("T")
OUT_OF_MEMORY = "distlaw/out of memory"
"""Key under which a process of a gang leaves the reason for which it ends it, for the others."""
PEER_LOST = ("gloo", "Connection closed by peer", "Connection reset by peer", "Timed out waiting")
"""Parts of messages of gloo's errors, which have no type of their own."""


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
        """Sum ``share`` over all processes, in place and in buckets, and return it."""
        if self.size > 1:
            buckets = share.view(-1).split(BUCKET) if share.numel() > BUCKET else (share,)
            for work in [distributed.all_reduce(bucket, async_op=True) for bucket in buckets]:
                assert work is not None
                work.wait()
        return share

    def any(self, here: bool) -> bool:
        """Return True in all processes if ``here`` is true in one."""
        return bool(self.total(torch.tensor(float(here))))

    def gathered(self, own: T) -> list[T]:
        """Return what each process gives, by rank; all must call it."""
        if self.size == 1:
            return [own]
        found = []
        for rank in range(self.size):
            told = [own]
            distributed.broadcast_object_list(told, rank, device=torch.device("cpu"))
            found += told
        return found

    def cpu_group(self) -> distributed.ProcessGroup:
        """Return a new group of all processes, for work beside training; all must call it."""
        return distributed.new_group(backend="gloo")

    def most(self, *numbers: int) -> list[int]:
        """Return the largest of each of these numbers in any process, without waiting for a GPU."""
        told = torch.tensor(numbers)
        if self.size > 1:
            distributed.all_reduce(told, distributed.ReduceOp.MAX)
        return [int(each) for each in told]


ONE_PROCESS = World()


@contextmanager
def world() -> Iterator[World]:
    """Join the processes that the environment describes, with gloo on CPUs and NCCL between GPUs.

    A process that waits for another for ``DISTLAW_GANG_TIMEOUT_SECONDS``, 600 by default, gives up, so that
    one that hangs ends its gang.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if on_gpu := device().type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        timeout=timedelta(seconds=environment.GANG_TIMEOUT_SECONDS),
    )
    try:
        yield World(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def out_of_memory(world: World, reason: str) -> Stopped:
    """Return how this attempt ends in the process whose memory ran out, after telling the others why.

    They wait for it in the midst of a batch, and end when it is gone.
    """
    stopped = Stopped(Ending.MEMORY, f"process {world.rank} of {world.size}: {reason}")
    with suppress(RuntimeError):  # the leading process, which keeps what is told, is gone
        _get_default_store().set(OUT_OF_MEMORY, str(stopped))
    return stopped


def lost_peer(error: BaseException, world: World) -> Stopped | None:
    """Return how this attempt ends if ``error`` means that another process is gone or hangs, else None."""
    text = str(error)
    if world.size == 1 or not isinstance(error, RuntimeError):
        return None
    if not isinstance(error, distributed.DistError) and not any(part in text for part in PEER_LOST):
        return None
    with suppress(RuntimeError):
        if (told := _get_default_store()).check([OUT_OF_MEMORY]):
            return Stopped(Ending.MEMORY, told.get(OUT_OF_MEMORY).decode())
    return Stopped(
        Ending.LOST,
        f"another of the {world.size} processes of this step ended, or did not answer for "
        f"{environment.GANG_TIMEOUT_SECONDS:g} s (DISTLAW_GANG_TIMEOUT_SECONDS): {text.splitlines()[0]}",
    )
