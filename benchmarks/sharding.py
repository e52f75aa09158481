"""Speed of sharded training against replicated, in processes on one machine, as a ratio within one run.

    python benchmarks/sharding.py [--params 1M] [--tokens 8192] [--processes 2] [--rounds 5]

Each process has ``--tokens`` tokens a step. Both runs take turns, so that what else the machine does slows
both; of wall and processor time, the median ratio of rounds is printed with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import time

import torch
from torch.multiprocessing import spawn

from scaling.units import parse_quantity
from sweeps.dag.ladder import shape_for
from sweeps.model.distributed import World, world
from sweeps.model.layout import Layout
from sweeps.spec.spec import Training
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

CONTEXT, VOCAB = 256, 8192


def seconds(run: Run, blocks: torch.Tensor) -> tuple[float, float]:
    """Return the wall and processor seconds of an optimizer step."""
    wall, processor = time.perf_counter(), time.process_time()
    run.step(blocks, None, None)
    return time.perf_counter() - wall, time.process_time() - processor


def measured(here: World, given: argparse.Namespace) -> list[list[tuple[float, float]]]:
    """Return for each round the seconds of a step, replicated and sharded."""
    shape = shape_for(given.params, vocab=VOCAB, context=CONTEXT, aspect_ratio=32)
    batch = given.tokens * here.size
    recipe = RunRecipe(shape=shape, steps=10**6, training=Training(batch_tokens=batch), seed=0)
    runs = [Run(recipe=recipe, world=here, layout=Layout(sharded=sharded)) for sharded in (False, True)]
    draw = torch.Generator().manual_seed(here.rank)
    blocks = torch.randint(VOCAB, (given.tokens // CONTEXT, CONTEXT + 1), generator=draw)
    return [[seconds(run, blocks) for run in runs] for _ in range(given.rounds + 1)][1:]


def report(name: str, rounds: list[tuple[float, float]]) -> None:
    """Print a median step of both, and the ratio."""
    each = sorted(replicated / sharded for replicated, sharded in rounds)
    replicated, sharded = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"{name}: replicated {replicated:.3f} s a step, sharded {sharded:.3f} s; sharded has")
    print(f"  {statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f}) of its speed")


def join(rank: int, port: int, given: argparse.Namespace) -> None:
    """Measure as one of the processes; the first prints."""
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(given.processes),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    with world() as here:
        found = measured(here, given)
    if here.leads:
        for number, name in enumerate(("wall time", "processor time")):
            report(name, [(whole[number], parts[number]) for whole, parts in found])


def main() -> None:
    """Read the arguments, start the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--params", type=lambda text: parse_quantity(text, "--params"), default=1e6)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(join, (port, given), nprocs=given.processes)


if __name__ == "__main__":
    main()
