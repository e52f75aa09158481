"""Checkpoints: how long training stands still for one, and how long it takes to be written."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import Any

from loops import random_blocks
from sizes import Sizes
from timing import seconds_a_step, synchronize

from sweeps.dag.ladder import shape_for
from sweeps.spec.spec import Training
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.store import Store
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

INTERVAL = 60.0
"""Seconds between two checkpoints, of which the share that training waits is reported."""


def checkpoint_cost(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Yield seconds that training waits for a checkpoint, that writing takes, and the share of a minute."""
    shape = shape_for(sizes.checkpoint, vocab=sizes.vocab, context=sizes.context, aspect_ratio=64)
    training = Training(batch_tokens=sizes.batch_tokens, precision="bf16")
    blocks = random_blocks(sizes)
    with tempfile.TemporaryDirectory(prefix="distlaw-gpu-") as folder:
        kept = Checkpoints(Store(folder), "run")
        run = Run(recipe=RunRecipe(shape=shape, steps=10**9, training=training, seed=0), checkpoints=kept)
        alone, _ = seconds_a_step(lambda: run.step(blocks, None, None), sizes.steps)
        synchronize()
        began = time.perf_counter()
        run.save()
        waited = time.perf_counter() - began
        during, _ = seconds_a_step(lambda: run.step(blocks, None, None), sizes.steps)
        kept.close()
        yield {
            "params": shape.params,
            "gigabytes": 12 * shape.total_params / 1e9,
            "seconds_training_waits": waited,
            "share_of_a_minute": waited / INTERVAL,
            "seconds_to_write": time.perf_counter() - began,
            "step_alone_seconds": alone,
            "step_while_writing_seconds": during,
        }
