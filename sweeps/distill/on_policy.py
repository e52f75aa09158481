"""Whose text an optimiser step is about, where the student has a part in writing it.

Which prompts, and which tokens after them, is a function of the student's weights, its seed and the step:
what a run goes on from are its weights, and what it keeps of earlier text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.data.batches import Batches
from sweeps.distill.policy_gradient import advantages
from sweeps.distill.sampling import Written, uniform, write
from sweeps.distill.targets import Online, Target
from sweeps.model.decoder import Decoder
from sweeps.model.device import device
from sweeps.model.distributed import World
from sweeps.model.language_model import LanguageModel
from sweeps.model.log_probs import cross_entropy, log_probabilities
from sweeps.spec.method import Method
from sweeps.spec.method_options import Credit, Replay

WRITE, CHOOSE, RECALL = range(3)
"""What numbers are drawn for."""
WATCHED = 16
"""Blocks of the data on which replay watches the loss."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one optimiser step learns from."""

    blocks: Tensor
    """``(batch, context + 1)``"""
    rows: Tensor | None
    """The target's, of every token but the last: ``(batch * context, ...)``."""
    of_tokens: tuple[Tensor, ...] = ()
    """What else the loss needs of each token after the prompts: ``(batch, written)`` each."""
    beside: Tensor | None = None
    """Blocks of the data whose cross-entropy is learnt beside it."""

    def pieces(self, size: int) -> Iterator[Lesson]:
        """The same in parts of ``size`` blocks, the last of what is left."""
        batch = len(self.blocks)
        rows = None if self.rows is None else self.rows.unflatten(0, (batch, -1))
        for first in range(0, batch, size):
            part = slice(first, first + size)
            yield Lesson(
                self.blocks[part],
                None if rows is None else rows[part].flatten(0, 1),
                tuple(each[part] for each in self.of_tokens),
                None if self.beside is None else self.beside[part],
            )


@dataclass(kw_only=True, eq=False)
class Student:
    """Batches that the student writes, or a share of them; the others are the data's."""

    method: Method
    context: int
    seed: int
    steps: int
    """Optimiser steps of the whole run."""
    world: World = field(default_factory=World)
    sequences: int = field(init=False, default=0)
    """That the student has written."""

    def lesson(self, student: Decoder, step: int, data: Tensor, target: Target) -> Lesson:
        """What optimiser step ``step`` learns from, given its batch of the data."""
        blocks = self._blocks(student, step, data, target)
        beside = data if self.method.pretraining else None
        return Lesson(blocks, _rows(target, blocks), beside=beside)

    def watch(self, data: Batches) -> None:
        """Take note of the data that batches come from."""

    def state(self) -> dict[str, Tensor]:
        """What the next lessons depend on, besides the student."""
        return {"/sequences": torch.tensor(self.sequences)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of :meth:`state`."""
        self.sequences = int(state["/sequences"])

    def _blocks(self, student: Decoder, step: int, data: Tensor, target: Target) -> Tensor:
        if self._chosen(step) < self.method.source.fraction:
            return self._write(student, step, data, target).blocks
        return data

    def _write(self, student: Decoder, step: int, data: Tensor, target: Target) -> Written:
        """What the student puts after the prompts of ``data``, with the teacher if its method says so."""
        source = self.method.source
        self.sequences += len(data)
        prompt = source.prompt(self.context)
        numbers = uniform(len(data) * self.world.size, self.context + 1 - prompt, self.seed, step, WRITE)
        writers: dict[LanguageModel, float] = {student: 1 - source.teacher_share}
        if source.teacher_share or self.method.credit:
            assert isinstance(target, Online), "a teacher that writes is at hand"
            writers[target.teacher] = source.teacher_share
        return write(
            list(writers),
            data[:, :prompt],
            self.world.share(numbers),
            shares=list(writers.values()),
            temperature=source.temperature,
        )

    def _chosen(self, step: int) -> float:
        """A number in [0, 1) that decides whose batch it is."""
        return float(uniform(1, 1, self.seed, step, CHOOSE))


class Both(Student):
    """Batches of which one half is text that the teacher wrote before, and the other the student's."""

    def lesson(self, student: Decoder, step: int, data: Tensor, target: Target) -> Lesson:
        half = len(data) // 2
        if not half:
            raise InputError(
                f"method {self.method.name}: of a batch one half is text of the teacher, one of the student, "
                f"but each of {self.world.size} processes has one block; use fewer, or larger batches"
            )
        blocks = torch.cat([data[:half], self._write(student, step, data[half:], target).blocks])
        written = self.context + 1 - self.method.source.prompt(self.context)
        teachers = torch.zeros(len(data), written, device=data.device)
        teachers[:half] = len(data) / half
        students = torch.zeros_like(teachers)
        students[half:] = len(data) / (len(data) - half)
        return Lesson(blocks, _rows(target, blocks), (teachers, students))


@dataclass(kw_only=True, eq=False)
class Replayed(Student):
    """Batches of the data at first; the student writes more of them as its loss on the data rises.

    A share of batches is not the data's. The loss on some blocks of the data is compared with a baseline,
    which is that loss at the first step. Where it has risen by the tolerance or more, the share grows and the
    loss becomes the baseline; otherwise the baseline stays (Ko et al. 2024, section 3.2, as in their code).
    Of those batches the student writes fewer and fewer, and the others are drawn from what it wrote before.
    The blocks are those that come last in the first epoch: never trained on in a run of less than that.
    """

    rules: Replay
    share: float = field(init=False)
    baseline: float = field(init=False, default=math.nan)
    """The loss that a rise is measured from, nats/token; NaN before the first look."""
    kept: Tensor = field(init=False)
    """The newest sequences, ``(kept, context + 1)``."""

    def __post_init__(self) -> None:
        self.share = self.rules.start
        self.kept = torch.empty(0, self.context + 1, dtype=torch.int64)

    def watch(self, data: Batches) -> None:
        self.watched = data.read(data.last(WATCHED))

    def state(self) -> dict[str, Tensor]:
        numbers = torch.tensor([self.share, self.baseline], dtype=torch.float64)
        return super().state() | {"/kept": self.kept, "/share and baseline": numbers}

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self.kept = state["/kept"]
        self.share, self.baseline = state["/share and baseline"].tolist()

    def _blocks(self, student: Decoder, step: int, data: Tensor, target: Target) -> Tensor:
        if step * self.rules.looks % self.steps < self.rules.looks:
            self._look(student)
        number, full = self._chosen(step), len(self.kept) == self.rules.capacity
        if number >= self.share:
            return data
        if number < self.share * (1 - step / self.steps) or not full:
            blocks = self._write(student, step, data, target).blocks
            self.kept = torch.cat([self.kept, blocks.cpu()])[-self.rules.capacity :]
            return blocks
        draw = np.random.default_rng((self.seed, step, RECALL))
        few = len(data) > len(self.kept)
        return self.kept[draw.choice(len(self.kept), len(data), replace=few)].to(data.device)

    @torch.no_grad()
    def _look(self, student: Decoder) -> None:
        blocks = self.watched.to(student.head.device)
        log_q = log_probabilities(student(blocks[:, :-1]))
        self.compare(cross_entropy(log_q, blocks[:, 1:]).mean().item())

    def compare(self, loss: float) -> None:
        """Let the share grow if ``loss`` (nats/token) is at least the tolerance above the baseline."""
        if math.isnan(self.baseline):
            self.baseline = loss
        elif loss >= self.baseline + self.rules.tolerance:
            self.share = min(1.0, self.share + self.rules.rise)
            self.baseline = loss


@dataclass(kw_only=True, eq=False)
class Credited(Student):
    """What student and teacher wrote together, with the credit of each token: for several optimiser steps."""

    rules: Credit
    lesson_kept: Lesson | None = field(init=False, default=None)

    def lesson(self, student: Decoder, step: int, data: Tensor, target: Target) -> Lesson:
        if step % self.rules.updates == 0:
            written = self._write(student, step, data, target)
            found = Lesson(written.blocks, None, (advantages(written, self.rules), written.drawn))
        else:
            assert self.lesson_kept is not None
            found = self.lesson_kept
        if found.rows is None:
            found = replace(found, rows=_rows(target, found.blocks))
        self.lesson_kept = found
        return replace(found, beside=data if self.method.pretraining else None)

    def state(self) -> dict[str, Tensor]:
        if self.lesson_kept is None:
            return super().state()
        advantage, drawn = self.lesson_kept.of_tokens
        return super().state() | {
            "/blocks": self.lesson_kept.blocks,
            "/credit": torch.stack([advantage, drawn]),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        if "/blocks" in state:
            advantage, drawn = state["/credit"].to(device())
            self.lesson_kept = Lesson(state["/blocks"].to(device()), None, (advantage, drawn))


def source_of(method: Method | None, context: int, seed: int, steps: int, world: World) -> Student | None:
    """What writes for a run, if its method has the student write.

    Raises:
        InputError: if what it keeps is more than one of several processes could go on from.
    """
    if method is None or method.source.by not in ("student", "both"):
        return None
    if world.size > 1 and (method.source.replay or method.credit):
        raise InputError(
            f"method {method.name}: text is kept from one optimiser step to the next, and a checkpoint holds "
            "that of one process; let it run on one process"
        )
    given: dict[str, Any] = {
        "method": method, "context": context, "seed": seed, "steps": steps, "world": world,
    }  # fmt: skip
    if method.source.by == "both":
        return Both(**given)
    if method.source.replay:
        return Replayed(rules=method.source.replay, **given)
    return Credited(rules=method.credit, **given) if method.credit else Student(**given)


def _rows(target: Target, blocks: Tensor) -> Tensor:
    return target.rows(blocks[:, :-1], torch.empty(0))
