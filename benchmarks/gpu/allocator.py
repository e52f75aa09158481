"""Memory model against the allocator of the device, for training steps of several shapes and precisions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from loops import random_blocks
from sizes import Sizes
from timing import release

from sweeps.dag.kind import StepKind
from sweeps.dag.ladder import shape_for
from sweeps.dag.step import Step
from sweeps.estimate.memory.memory import memory_parts
from sweeps.model.device import device
from sweeps.spec.corpus import Corpus
from sweeps.spec.spec import Training
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run


def compare_memory(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Yield expected and allocated bytes of steps by size and precision; on a CPU the expected ones only."""
    found: dict[str, Any] = {}
    for params in sizes.models:
        for precision in ("fp32", "bf16"):
            step = _step(params, precision, sizes)
            expected = memory_parts(step, gpu=device().type == "cuda").tensors
            row = found[f"{params / 1e6:g}M {precision}"] = {"expected_gb": expected / 1e9}
            if device().type == "cuda":
                allocated = _allocated(step, sizes)
                row |= {"allocated_gb": allocated / 1e9, "ratio": expected / allocated}
            yield found


def _allocated(step: Step, sizes: Sizes) -> float:
    release()
    before = torch.cuda.memory_allocated()
    recipe = RunRecipe(shape=step.shape, steps=step.steps, training=step.training, seed=0)
    run, blocks = Run(recipe=recipe), random_blocks(sizes)
    for _ in range(3):
        run.step(blocks, None, None)
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before)


def _step(params: float, precision: str, sizes: Sizes) -> Step:
    training = Training(batch_tokens=sizes.batch_tokens, precision=precision)  # type: ignore[arg-type]
    return Step(
        kind=StepKind.PRETRAIN,
        shape=shape_for(params, vocab=sizes.vocab, context=sizes.context, aspect_ratio=64),
        aspect_ratio=64,
        steps=1000,
        seed=0,
        data_seed=0,
        half=None,
        corpus=_corpus(sizes),
        corpus_fingerprint="none",
        training=training,
    )


def _corpus(sizes: Sizes) -> Corpus:
    """Return a corpus of the sizes' vocabulary and context, which is never read."""
    return Corpus(vocab=sizes.vocab, context=sizes.context)
