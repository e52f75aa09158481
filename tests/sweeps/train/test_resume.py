"""Runs that are killed, at any point, and go on: the same bits as if nothing had happened."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeps.dag.ladder import shape_for
from sweeps.execute.steps.step import run_step
from sweeps.resolve import dag_of
from sweeps.spec.spec import Training, parse_sweep
from sweeps.store.checkpoints import shards  # noqa: F401  (before the forks, in each of which it takes a second)
from sweeps.store.checkpoints.checkpoints import KEPT, SMALL_BYTES, Checkpoints
from sweeps.store.outcomes import Ending, ending_of
from sweeps.store.store import Store
from sweeps.train.loop import train, train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

SHAPE = shape_for(3e3, vocab=300, context=32, aspect_ratio=32)
STEPS = 160
RULES = Training(batch_tokens=64, warmup_tokens=640)
TOKENS = (torch.arange(20_000) ** 2 % 299).numpy().astype("uint16")


def digest(store: Store | None, small_bytes: int = SMALL_BYTES) -> str:
    """The weights after a run that checkpoints at every step (or never, without a store)."""
    model = train(
        RunRecipe(shape=SHAPE, steps=STEPS, training=RULES, seed=0),
        TOKENS,
        checkpoints=Checkpoints(store, "run", small_bytes=small_bytes) if store else None,
        checkpoint_seconds=0,
    )
    weights = torch.cat([parameter.flatten() for parameter in model.parameters()])
    return hashlib.sha256(weights.detach().numpy().tobytes()).hexdigest()


@pytest.mark.alone
@pytest.mark.parametrize(
    ("small_bytes", "kills"), [(SMALL_BYTES, 20), (0, 10)], ids=["at once", "beside training"]
)
def test_killed_at_random_points_a_run_ends_in_the_same_bits(
    tmp_path: Path, small_bytes: int, kills: int
) -> None:
    """SIGKILL, mostly inside the write of a checkpoint, since one is written at every step."""
    undisturbed, started = digest(None), time.perf_counter()
    assert digest(Store(tmp_path / "whole"), small_bytes) == undisturbed
    seconds = time.perf_counter() - started
    draw, store = random.Random(0), Store(tmp_path / "killed")
    finished = progress = 0
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            digest(store, small_bytes)
            os._exit(0)
        time.sleep(draw.uniform(0.0, seconds / kills))  # together about half of the run
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        finished += os.WIFEXITED(status)
        found = Checkpoints(store, "run").latest()
        assert (found[0] if found else 0) >= progress  # what was done is never lost
        progress = found[0] if found else 0
    assert finished < kills / 2
    assert 0 < progress < STEPS
    assert digest(store, small_bytes) == undisturbed
    assert len(store.names("run", "checkpoints")) == KEPT


@pytest.mark.parametrize("part", ["state.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, part: str, damage: str) -> None:
    store = Store(tmp_path)
    checkpoints = Checkpoints(store, "run")
    for step in (10, 20, 30):
        checkpoints.save(step, {"w": torch.full((1000,), float(step))})
    assert len(store.names("run", "checkpoints")) == KEPT
    newest = tmp_path / "run" / "checkpoints" / store.names("run", "checkpoints")[-1] / part
    data = bytearray(newest.read_bytes())
    if damage == "gone":
        newest.unlink()
    else:
        data[len(data) // 2] ^= 1
        newest.write_bytes(data[: len(data) // 2] if damage == "truncated" else data)
    found = Checkpoints(store, "run").latest()
    assert found is not None
    assert found[0] == 20
    assert torch.equal(found[1]["w"], torch.full((1000,), 20.0))
    checkpoints.clear()
    assert Checkpoints(store, "run").latest() is None


class FullStore(Store):
    """Store with room for manifests only."""

    written = 0

    def write_bytes(self, data: Any, *place: str, durable: bool = True) -> None:
        if place[-1].endswith(".safetensors"):
            time.sleep(0.1)
            self.written += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place[-1])
        super().write_bytes(data, *place, durable=durable)


@pytest.mark.parametrize("stop", [None, 3], ids=["in the midst", "at the end"])
def test_a_full_disk_beside_training_ends_it(tmp_path: Path, stop: int | None) -> None:
    """At the next step or save; the last checkpoint is waited for, so that its failure is not lost."""
    store = FullStore(tmp_path)
    recipe = RunRecipe(shape=SHAPE, steps=STEPS, training=RULES, seed=0, stop=stop)
    run = Run(recipe=recipe, checkpoints=Checkpoints(store, "run", small_bytes=0))
    seconds = 0 if stop is None else 3600
    with pytest.raises(OSError, match="No space left on device") as raised:
        list(train_together([run], TOKENS, data_seed=0, checkpoint_seconds=seconds))
    assert ending_of(raised.value) is Ending.FULL
    assert store.written == 1
    assert run.done in ([stop] if stop else [1, 2])
    assert Checkpoints(store, "run").latest() is None


KILLED = """
import json, sys, torch
torch.set_num_threads(1)
import sweeps.train.loop
sweeps.train.loop.CHECKPOINT_SECONDS = 0.05
from sweeps.execute.steps.step import run_step
from sweeps.spec.spec import parse_sweep
from sweeps.resolve import dag_of
from sweeps.store.store import Store
run_step(Store(sys.argv[1]), dag_of(parse_sweep(json.loads(sys.argv[2]))).steps[0])
"""


def test_a_step_killed_with_its_process_goes_on_where_it_was(
    tmp_path: Path, text_file: Path, own_cache: Path
) -> None:
    """The whole step, as executors run it: killed while training, resumed by another, its checkpoints then gone."""
    spec = {
        "name": "one",
        "corpus": {"source": str(text_file), "vocab": 300, "context": 32},
        "training": {"batch_tokens": 64},
        "supervised": [{"params": ["3k"], "tokens": ["96k"]}],
    }
    (step,) = dag_of(parse_sweep(spec)).steps
    broken = tmp_path / "broken"
    command = [sys.executable, "-c", KILLED, str(broken), json.dumps(spec)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while len(list(broken.glob("*/checkpoints/*/manifest.json"))) < 2:
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    running.wait()
    assert not list(broken.glob("*/result.json"))
    again = run_step(Store(broken), step)
    assert again["loss"] == run_step(Store(tmp_path / "whole"), step)["loss"]
    assert not list(broken.glob("*/checkpoints"))
