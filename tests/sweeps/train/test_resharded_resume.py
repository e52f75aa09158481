"""Runs that go on with another number of processes than wrote their checkpoint."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sweeps.dag.ladder import shape_for
from sweeps.model.distributed import World, world
from sweeps.model.heldout import heldout_loss
from sweeps.model.layout import Layout
from sweeps.spec.spec import Training
from sweeps.store.checkpoints.checkpoints import SMALL_BYTES, Checkpoints
from sweeps.store.store import Store
from sweeps.train.loop import train, train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

pytest.importorskip("torch.distributed.fsdp")

CONTEXT = 32
RECIPE = RunRecipe(
    shape=shape_for(3e3, vocab=300, context=CONTEXT, aspect_ratio=32),
    steps=18,
    training=Training(batch_tokens=8 * CONTEXT, warmup_tokens=9 * 8 * CONTEXT),
    seed=0,
)
TOKENS = (np.arange(20_000) ** 2 % 299).astype(np.uint16)


def go_on(here: World, place: Path, began: int, end: int, small_bytes: int = 0) -> Run:
    """Train from the newest checkpoint, after ``began`` steps, to ``end``; sharded if ``here`` is a gang."""
    sharded = here.size > 1
    run = Run(
        recipe=replace(RECIPE, stop=end),
        world=here,
        layout=Layout(sharded=sharded),
        checkpoints=Checkpoints(
            Store(place), "run", group=here.cpu_group() if sharded else None, small_bytes=small_bytes
        ),
    )
    assert run.began == began
    assert run.sharded == sharded
    ((_, error),) = train_together([run], TOKENS, data_seed=0)
    assert error is None
    return run


def gang(size: int, work: Callable[[World], object]) -> None:
    """Let forked processes do ``work`` as one gang; a new interpreter would take seconds to start."""
    import torch._dynamo  # noqa: F401  (which each child would import again)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
            os.environ["MASTER_PORT"] = str(port)
            os._exit(_failed(work))
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * size


def _failed(work: Callable[[World], object]) -> int:
    torch.set_num_threads(1)
    try:
        with world() as here:
            work(here)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def test_four_processes_then_two_then_one_train_as_one_does(tmp_path: Path) -> None:
    gang(4, lambda here: go_on(here, tmp_path, 0, 6))
    gang(2, lambda here: go_on(here, tmp_path, 6, 12))
    found = go_on(World(), tmp_path, 12, 18).model
    whole = train(RECIPE, TOKENS, data_seed=0)
    for one, other in zip(found.parameters(), whole.parameters(), strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()
    losses = [heldout_loss(model, TOKENS[:2000], context=CONTEXT).loss for model in (found, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_gang_goes_on_from_the_one_file_of_one_process(tmp_path: Path) -> None:
    go_on(World(), tmp_path, 0, 6, small_bytes=SMALL_BYTES)
    assert list(tmp_path.glob("run/checkpoints/*/state.safetensors"))
    gang(2, lambda here: go_on(here, tmp_path, 6, 12))
    found = go_on(World(), tmp_path, 12, 18).model
    whole = train(RECIPE, TOKENS, data_seed=0)
    for one, other in zip(found.parameters(), whole.parameters(), strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()
