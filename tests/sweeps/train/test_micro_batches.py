"""Micro-batches of distillations: a teacher reads one at a time, once for all students of a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from sweeps.dag.ladder import shape_for
from sweeps.distill.targets import Online
from sweeps.model.decoder import Decoder
from sweeps.model.layout import Layout
from sweeps.spec.method.method import Method
from sweeps.spec.spec import Training
from sweeps.train.loop import train_together
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

CONTEXT, BATCH, STEPS = 16, 8, 3
SHAPE = shape_for(3e3, vocab=300, context=CONTEXT, aspect_ratio=32)
RULES = Training(batch_tokens=BATCH * CONTEXT, warmup_tokens=BATCH * CONTEXT)
TOKENS = (np.arange(2_000) ** 2 % 299).astype(np.uint16)
HALVES = Layout(micro_batch_tokens=BATCH * CONTEXT / 2)


@dataclass
class Noted:
    """A teacher that notes how many blocks it reads at a time, or says NaN of one block of the stream."""

    inner: Online
    nonsense: int | None = None
    read: list[int] = field(default_factory=list)

    def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:
        self.read.append(len(inputs))
        rows = self.inner.rows(inputs, numbers)
        return rows * torch.nan if self.nonsense in numbers.tolist() else rows

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        return self.inner.log_probabilities(rows, temperature)

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:
        return self.inner.outcomes(log_q, rows)


def teacher(nonsense: int | None = None) -> Noted:
    model = Decoder(SHAPE)
    model.initialize(9)
    return Noted(Online(model.eval()), nonsense)


def trained(seeds: Sequence[int], target: Noted, *layouts: Layout) -> list[dict[str, Tensor]]:
    method = Method()
    runs = [
        Run(
            recipe=RunRecipe(shape=SHAPE, steps=STEPS, training=RULES, seed=seed, method=method),
            layout=layout,
        )
        for seed, layout in zip(seeds, layouts, strict=True)
    ]
    for _, error in train_together(runs, TOKENS, data_seed=0, target=target):
        if error:
            raise error
    return [run.model.state_dict() for run in runs]


def test_a_teacher_reads_one_micro_batch_at_a_time_and_once_for_a_cohort() -> None:
    alone, cohort = teacher(), teacher()
    (first,) = trained([0], alone, HALVES)
    assert alone.read == [BATCH // 2] * 2 * STEPS
    together = trained([0, 1], cohort, HALVES, HALVES)
    assert cohort.read == alone.read
    for name, weight in first.items():  # bit for bit
        assert torch.equal(weight, together[0][name])


def test_micro_batches_move_a_distillation_by_rounding_only() -> None:
    (whole,), (halves,) = trained([0], teacher(), Layout()), trained([0], teacher(), HALVES)
    for name, weight in whole.items():
        torch.testing.assert_close(halves[name], weight, rtol=1e-4, atol=1e-6)


def test_a_member_is_what_it_is_alone_beside_one_with_other_micro_batches() -> None:
    (alone,), target = trained([0], teacher(), Layout()), teacher()
    beside = trained([1, 0], target, HALVES, Layout())
    assert target.read == [BATCH // 2, BATCH // 2, BATCH] * STEPS
    for name, weight in alone.items():
        assert torch.equal(weight, beside[1][name])


def test_a_teacher_that_says_nonsense_of_the_second_micro_batch_is_told() -> None:
    with pytest.raises(Exception, match="the teacher: its outputs are not all finite numbers"):
        trained([0], teacher(nonsense=_last_block()), HALVES)


def _last_block() -> int:
    """Return the number of the last block of the first batch."""
    numbers: list[int] = []

    class Listening(Noted):
        def rows(self, inputs: Tensor, numbers_read: Tensor) -> Tensor:
            numbers.extend(numbers_read.tolist())
            return super().rows(inputs, numbers_read)

    trained([0], Listening(teacher().inner), Layout())
    return numbers[BATCH - 1]
