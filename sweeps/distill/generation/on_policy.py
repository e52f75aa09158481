"""On-policy batches: text that the student writes as it learns, or has a part in writing.

Which prompts, and which tokens after them, is a function of the student's weights, its seed and the step:
what a run goes on from are its weights, and what it keeps of earlier text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.data.batches import Batches
from sweeps.distill.generation.policy_gradient import advantages
from sweeps.distill.generation.sampling import GeneratedText, uniform_numbers, write
from sweeps.distill.targets import Online
from sweeps.model.decoder import Decoder
from sweeps.model.device import device
from sweeps.model.distributed import World
from sweeps.model.language_model import LanguageModel
from sweeps.model.log_probs import cross_entropy, log_probabilities
from sweeps.spec.method.interfaces import SequenceSource
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_options import Credit, Replay, Source
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.method.run_views import BatchSource, RunSetting, State, TargetReader, TrainingBatch

WRITE, CHOOSE, RECALL = range(3)
"""Purposes of random numbers, each with a stream of its own."""
WATCHED = 16
"""Blocks of the data on which replay watches the loss."""


@dataclass(kw_only=True, eq=False)
class StudentBatches:
    """Batches that the student writes, or a share of them; the others are the data's."""

    method: Method
    rules: Source
    context: int
    seed: int
    steps: int
    """Optimizer steps of the whole run."""
    world: World = field(default_factory=World)
    sequences: int = field(init=False, default=0)
    """Sequences that the student has written."""

    def batch(self, student: Decoder, step: int, data: Tensor, target: TargetReader | None) -> TrainingBatch:
        """Return what optimizer step ``step`` learns from, given its batch of the data."""
        blocks = self._blocks(student, step, data, target)
        beside = data if self.method.pretraining else None
        return TrainingBatch(blocks, _rows(target, blocks), pretraining_blocks=beside)

    def watch(self, data: Batches) -> None:
        """Take note of the data that batches come from."""

    def state(self) -> State:
        """Return what the next batches depend on, besides the student."""
        return {"/sequences": torch.tensor(self.sequences)}

    def load_state(self, state: State) -> None:
        """Restore what :meth:`state` returned."""
        self.sequences = int(state["/sequences"])

    def _blocks(self, student: Decoder, step: int, data: Tensor, target: TargetReader | None) -> Tensor:
        if self._chosen(step) < self.rules.fraction:
            return self._write(student, step, data, target).blocks
        return data

    def _write(self, student: Decoder, step: int, data: Tensor, target: TargetReader | None) -> GeneratedText:
        """Return the student's continuation of the prompts of ``data``, with the teacher if asked for."""
        source = self.rules
        self.sequences += len(data)
        prompt = source.prompt(self.context)
        numbers = uniform_numbers(
            len(data) * self.world.size, self.context + 1 - prompt, self.seed, step, WRITE
        )
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
        """Return a number in [0, 1) that decides whose batch it is."""
        return float(uniform_numbers(1, 1, self.seed, step, CHOOSE))


class HalfBatches(StudentBatches):
    """Batches of which one half is text that the teacher wrote before, and the other the student's."""

    def batch(self, student: Decoder, step: int, data: Tensor, target: TargetReader | None) -> TrainingBatch:
        half = len(data) // 2
        if not half:
            raise InputError(
                f"method {self.method.name}: of a batch one half is text of the teacher, one of the student, "
                f"but each of {self.world.size} processes has one block; use fewer, or larger batches"
            )
        blocks = torch.cat([data[:half], self._write(student, step, data[half:], target).blocks])
        written = self.context + 1 - self.rules.prompt(self.context)
        teachers = torch.zeros(len(data), written, device=data.device)
        teachers[:half] = len(data) / half
        students = torch.zeros_like(teachers)
        students[half:] = len(data) / (len(data) - half)
        return TrainingBatch(blocks, _rows(target, blocks), (teachers, students))


@dataclass(kw_only=True, eq=False)
class ReplayedBatches(StudentBatches):
    """Batches of the data at first; the student writes more of them as its loss on the data rises.

    A share of batches is not the data's. The loss on some blocks of the data is compared with a baseline,
    which is that loss at the first step. Where it has risen by the tolerance or more, the share grows and the
    loss becomes the baseline; otherwise the baseline stays (Ko et al. 2024, section 3.2, as in their code).
    Of those batches the student writes fewer and fewer, and the others are drawn from what it wrote before.
    The blocks are those that come last in the first epoch: never trained on in a run of less than that.
    """

    replay: Replay
    share: float = field(init=False)
    baseline: float = field(init=False, default=math.nan)
    """The loss that a rise is measured from, nats/token; NaN before the first look."""
    kept: Tensor = field(init=False)
    """The newest sequences, ``(kept, context + 1)``."""

    def __post_init__(self) -> None:
        self.share = self.replay.start
        self.kept = torch.empty(0, self.context + 1, dtype=torch.int64)

    def watch(self, data: Batches) -> None:
        self.watched = data.read(data.last(WATCHED))

    def state(self) -> State:
        numbers = torch.tensor([self.share, self.baseline], dtype=torch.float64)
        return super().state() | {"/kept": self.kept, "/share and baseline": numbers}

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.kept = state["/kept"]
        self.share, self.baseline = state["/share and baseline"].tolist()

    def _blocks(self, student: Decoder, step: int, data: Tensor, target: TargetReader | None) -> Tensor:
        if step * self.replay.looks % self.steps < self.replay.looks:
            self._look(student)
        number, full = self._chosen(step), len(self.kept) == self.replay.capacity
        if number >= self.share:
            return data
        if number < self.share * (1 - step / self.steps) or not full:
            blocks = self._write(student, step, data, target).blocks
            self.kept = torch.cat([self.kept, blocks.cpu()])[-self.replay.capacity :]
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
        elif loss >= self.baseline + self.replay.tolerance:
            self.share = min(1.0, self.share + self.replay.rise)
            self.baseline = loss


@dataclass(kw_only=True, eq=False)
class CreditedBatches(StudentBatches):
    """Text of student and teacher with the advantage of each token, for several optimizer steps."""

    credit: Credit
    kept: TrainingBatch | None = field(init=False, default=None)

    def batch(self, student: Decoder, step: int, data: Tensor, target: TargetReader | None) -> TrainingBatch:
        if step % self.credit.updates == 0:
            written = self._write(student, step, data, target)
            found = TrainingBatch(written.blocks, None, (advantages(written, self.credit), written.drawn))
        else:
            assert self.kept is not None
            found = self.kept
        if found.rows is None:
            found = replace(found, rows=_rows(target, found.blocks))
        self.kept = found
        return replace(found, pretraining_blocks=data if self.method.pretraining else None)

    def state(self) -> State:
        if self.kept is None:
            return super().state()
        advantage, drawn = self.kept.token_inputs
        return super().state() | {
            "/blocks": self.kept.blocks,
            "/credit": torch.stack([advantage, drawn]),
        }

    def load_state(self, state: State) -> None:
        super().load_state(state)
        if "/blocks" in state:
            advantage, drawn = state["/credit"].to(device())
            self.kept = TrainingBatch(state["/blocks"].to(device()), None, (advantage, drawn))


def on_policy_source(rules: Source, setting: RunSetting) -> StudentBatches:
    """Return the source of a run whose student writes.

    Raises:
        InputError: if what it keeps is more than one of several processes could go on from.
    """
    method = setting.method
    given: dict[str, Any] = {
        "method": method, "rules": rules, "context": setting.context, "seed": setting.seed,
        "steps": setting.steps, "world": setting.world,
    }  # fmt: skip
    if setting.world.size > 1 and (rules.replay or method.credit):
        raise InputError(
            f"method {method.name}: text is kept from one optimizer step to the next, and a checkpoint holds "
            "that of one process; let it run on one process"
        )
    if rules.by == "both":
        return HalfBatches(**given)
    if rules.replay:
        return ReplayedBatches(replay=rules.replay, **given)
    return CreditedBatches(credit=method.credit, **given) if method.credit else StudentBatches(**given)


class StatefulSource:
    """A source that is one function of its state, at work in one run."""

    def __init__(self, part: SequenceSource, setting: RunSetting) -> None:
        self.part, self.setting = part, setting
        self.remembered: State = part.initial_state(setting)
        self.writes = part.passes(setting.method).written > 0
        self.sequences = 0
        if self.remembered and setting.world.size > 1:
            raise InputError(
                f"source: {type(part).__name__} remembers something from one step to the next, and a "
                "checkpoint holds that of one process; let it run on one process"
            )

    def batch(self, student: Decoder, step: int, data: Tensor, target: TargetReader | None) -> TrainingBatch:
        """Return what optimizer step ``step`` learns from, with the target's rows."""
        with torch.no_grad():
            made = self.part.batch(self.setting, student, step, data, self.remembered)
        if made.blocks.shape != data.shape:
            raise InputError(
                f"source: {type(self.part).__name__}.batch returned blocks of {tuple(made.blocks.shape)}; "
                f"they must be {tuple(data.shape)}, as the batch of the data"
            )
        self.sequences += len(data) if self.writes else 0
        return (
            made
            if made.rows is not None or target is None
            else replace(made, rows=_rows(target, made.blocks))
        )

    def watch(self, data: Batches) -> None:
        """Take no note: batches of the data are handed over one by one."""

    def state(self) -> State:
        """Return what the next batches depend on, besides the student."""
        own = {f"/source/{name}": tensor for name, tensor in self.remembered.items()}
        return own | {"/sequences": torch.tensor(self.sequences)}

    def load_state(self, state: State) -> None:
        """Restore what :meth:`state` returned."""
        self.sequences = int(state["/sequences"])
        prefix = "/source/"
        self.remembered = {
            name.removeprefix(prefix): tensor.to(device())
            for name, tensor in state.items()
            if name.startswith(prefix)
        }


def batch_source(setting: RunSetting | None) -> BatchSource | None:
    """Return what makes the batches of a run, if its method's source does so during the run."""
    if setting is None or not (part := parts_of(setting.method).source).writes_along:
        return None
    return part.start(setting) or StatefulSource(part, setting)


def _rows(target: TargetReader | None, blocks: Tensor) -> Tensor:
    assert target is not None, "on-policy text needs a target"
    return target.rows(blocks[:, :-1], torch.empty(0))
