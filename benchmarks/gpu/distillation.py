"""Distillation from a random teacher: one student asks it online, one reads cached top-k logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from loops import random_blocks
from numpy.typing import NDArray
from sizes import Sizes
from timing import rates, seconds_a_step, synchronize
from torch import Tensor

from scaling.costs.flops import ModelShape
from sweeps.dag.ladder import shape_for
from sweeps.distill.caches.logit_format import TopK
from sweeps.distill.targets import Cached, Online
from sweeps.model.chunked_loss import logits_fit
from sweeps.model.decoder import Decoder
from sweeps.model.device import device
from sweeps.model.frozen import FrozenBody
from sweeps.spec.method.method import Method
from sweeps.spec.spec import Training
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

TOP = 32


class InMemory:
    """Packed distributions of one batch, in the place of shards of a store."""

    def __init__(self, packed: NDArray[np.void]) -> None:
        self.packed = packed

    def of(self, numbers: NDArray[np.int64]) -> NDArray[np.void]:
        """Return those of the given blocks."""
        return self.packed[numbers]


def compare_targets(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Yield tokens per second of a student under an online teacher, and under what it wrote down."""
    teacher = _shape(sizes.teacher, sizes)
    student = _shape(sizes.student, sizes)
    blocks, tokens = random_blocks(sizes), sizes.batch_tokens
    online = _online(teacher, sizes)
    numbers = torch.arange(len(blocks))
    own = student.training_flops(tokens)
    reading = teacher.forward_flops * tokens
    found: dict[str, Any] = {"teacher_params": teacher.params, "student_params": student.params}
    seconds, _ = seconds_a_step(lambda: online.rows(blocks[:, :-1], numbers), sizes.steps)
    found["teacher alone"] = {"tokens_per_second": tokens / seconds}
    yield found
    run = _run(student, Method(), sizes)
    found["online"] = rates(
        lambda: run.step(blocks, online, online.rows(blocks[:, :-1], numbers)),
        sizes.steps,
        tokens,
        own + reading,
    )
    yield found
    packed = _packed(online, blocks, sizes)
    synchronize()
    cached = Cached(TopK(sizes.vocab, TOP), InMemory(packed))  # type: ignore[arg-type]
    run = _run(student, Method(logits="top-k", top=TOP), sizes)
    found["cached"] = rates(
        lambda: run.step(blocks, cached, cached.rows(blocks[:, :-1], numbers)), sizes.steps, tokens, own
    )
    yield found


def _shape(params: float, sizes: Sizes) -> ModelShape:
    return shape_for(params, vocab=sizes.vocab, context=sizes.context, aspect_ratio=64)


def _online(shape: ModelShape, sizes: Sizes) -> Online:
    model = Decoder(shape)
    model.initialize(1)
    model.eval().requires_grad_(False)
    model.to(device()).precision = torch.bfloat16
    fit = logits_fit(sizes.batch_tokens, sizes.vocab)
    return Online(FrozenBody(model) if sizes.compile else model, returns_log_probs=fit)


def _run(shape: ModelShape, method: Method, sizes: Sizes) -> Run:
    training = Training(batch_tokens=sizes.batch_tokens, precision="bf16", compile=sizes.compile)
    return Run(recipe=RunRecipe(shape=shape, steps=10**9, training=training, seed=0, method=method))


def _packed(online: Online, blocks: Tensor, sizes: Sizes) -> NDArray[np.void]:
    """Return the likeliest tokens of each position, block by block; the teacher reads its usual batch."""
    rows = online.rows(blocks[:, :-1], torch.arange(len(blocks)))
    storage = TopK(sizes.vocab, TOP)
    return np.stack([storage.pack(online.log_probabilities(each, 1.0)) for each in rows.split(sizes.context)])
