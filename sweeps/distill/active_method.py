"""A method at work in one run: all that it keeps from one optimizer step to the next, heads included."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from scaling.errors import InputError
from sweeps.distill.generation.on_policy import batch_source
from sweeps.model.decoder import Decoder
from sweeps.model.device import device
from sweeps.spec.method.interfaces import AuxiliaryLoss, StepPart
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.method.run_views import (
    AfterStep,
    HiddenStates,
    RunSetting,
    State,
    TargetReader,
    TrainingBatch,
)

SCHEDULE = "/pace"
"""Name of a divergence's schedule in checkpoints, as in 0.1.0."""


class ActiveMethod:
    """Schedule, source, heads and states of a run's method; of a run without a method, none of these."""

    def __init__(self, setting: RunSetting | None) -> None:
        self.setting = setting
        self.parts = parts_of(setting.method) if setting else None
        self.schedule = self.parts.divergence.schedule(setting.steps) if self.parts and setting else None
        self.source = batch_source(setting)
        self.losses = self.parts.auxiliary_losses if self.parts else {}
        self.hooks = self.parts.hooks if self.parts else {}
        self.step_parts: dict[str, StepPart] = {**self.losses, **self.hooks}
        self.heads = dict(self._made_heads())
        self.states: dict[str, State] = {}
        if setting:
            self.states = {name: part.initial_state(setting) for name, part in self.step_parts.items()}

    @property
    def scheduled(self) -> Tensor | None:
        """The number that the divergence reads at the next step, if it reads one."""
        return self.schedule.value if self.schedule else None

    def initial_weights(self, drawn: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
        """Return the weights that the student begins with by name: those ``drawn``, or as the method says.

        A method that says anything sees all of them at once.

        Raises:
            InputError: if those are not the student's by name and shape.
        """
        part = self.parts.initial_weights if self.parts else None
        if part is None or self.setting is None:
            return drawn
        own = dict(drawn)
        shapes = {name: tuple(weight.shape) for name, weight in own.items()}
        found = part.weights(self.setting, own)
        if {name: tuple(weight.shape) for name, weight in found.items()} != shapes:
            raise InputError(
                f"initial_weights: {type(part).__name__} returned other names or shapes than the student has"
            )
        return found.items()

    def batch(
        self, student: Decoder, step: int, data: Tensor, rows: Tensor | None, target: TargetReader | None
    ) -> TrainingBatch:
        """Return what optimizer step ``step`` learns from, given its batch of the data and its rows."""
        if self.source:
            return self.source.batch(student, step, data, target)
        return TrainingBatch(data, rows)

    def weighted(self, batch: TrainingBatch, numbers: Tensor, first: int) -> TrainingBatch:
        """Return ``batch`` with the weights of its positions, where the target masks some.

        Args:
            batch: This process's share of a batch.
            numbers: Which blocks of the stream it is, ``(batch,)``.
            first: The first position that counts.
        """
        if self.parts is None or self.setting is None or self.setting.models is None:
            return batch
        inputs = batch.blocks[:, :-1]
        mask = self.parts.target.mask(self.setting.models, inputs, numbers)
        if mask is None:
            return batch
        weights = mask.to(inputs.device, torch.float32)
        if batch.weights is not None:
            weights = weights * batch.weights
        counted = self.setting.world.total(weights[:, first:].sum())
        positions = weights[:, first:].numel() * self.setting.world.size
        return replace(batch, weights=weights * (positions / counted.clamp(min=1.0)))

    def layers(self, student: Decoder) -> list[int]:
        """Return the student's layers that auxiliary losses read, one loss after the other."""
        return [layer for loss in self.losses.values() for layer in loss.student_layers(student.shape)]

    def auxiliary_loss(self, hidden: tuple[Tensor, ...], batch: TrainingBatch, first: int) -> Tensor:
        """Return the weighted sum of auxiliary losses, each a mean over the positions that count.

        Args:
            hidden: The student's at :meth:`layers`, ``(batch, context, width)`` each.
            batch: What the step learns from, or a piece of it.
            first: The first position that counts.
        """
        inputs, labels = batch.blocks[:, :-1], batch.blocks[:, 1:]
        weights = torch.ones(inputs.shape, device=inputs.device) if batch.weights is None else batch.weights
        counted = weights > 0
        counted[:, :first] = False
        total, left = torch.zeros((), device=inputs.device), list(hidden)
        assert self.setting is not None
        for name, loss in self.losses.items():
            own = [left.pop(0) for _ in loss.student_layers(self.setting.shape)]
            view = HiddenStates(
                inputs=inputs,
                labels=labels,
                student=tuple(own),
                teachers=tuple(self._read_teachers(loss, batch)),
                counted=counted,
                world=self.setting.world,
            )
            each = loss.per_token(view, self.heads.get(name), self.states[name])
            if each.shape != inputs.shape:
                raise InputError(
                    f"{name}: {type(loss).__name__}.per_token returned {tuple(each.shape)}; it must be "
                    f"(batch, context), {tuple(inputs.shape)}"
                )
            kept = torch.where(counted, each * weights, 0.0)[:, first:]
            total = total + loss.weight * kept.mean()
        return total

    @torch.no_grad()
    def after_step(self, step: int, student: Decoder, loss: Tensor, learning_rate: float) -> None:
        """Move the schedule on, and let auxiliary losses and hooks do what follows an update.

        Raises:
            InputError: if a hook replaced a parameter, or left anything but tensors in its state.
        """
        if self.schedule:
            self.schedule.update(step, loss)
        if not self.step_parts or self.setting is None:
            return
        run = AfterStep(
            setting=self.setting,
            step=step,
            student=student,
            heads=self.heads,
            loss=loss,
            learning_rate=learning_rate,
        )
        places = [weight.data_ptr() for weight in student.parameters()]
        for name, part in self.step_parts.items():
            part.after_step(run, self.states[name])
            _check_tensors(f"{name}: {type(part).__name__}", self.states[name])
            if places != [weight.data_ptr() for weight in student.parameters()]:
                raise InputError(
                    f"{name}: {type(part).__name__} replaced a parameter; change it in place, as in "
                    "weight.copy_(...)"
                )

    def copied_states(self) -> dict[str, State]:
        """Return copies of all states, for a batch that may have to be begun again."""
        return {name: {k: v.clone() for k, v in state.items()} for name, state in self.states.items()}

    def state(self) -> State:
        """Return all that the next step depends on besides the student's weights and moments."""
        own: State = {SCHEDULE: self.schedule.state} if self.schedule else {}
        if self.source:
            own |= self.source.state()
        for name, state in self.states.items():
            own |= {f"/{name}/{key}": tensor for key, tensor in state.items()}
        for name, head in self.heads.items():
            own |= {f"/heads/{name}/{key}": tensor for key, tensor in head.state_dict().items()}
        return own

    def load_state(self, state: State) -> None:
        """Restore what :meth:`state` returned; other names in ``state`` belong to others."""
        if self.schedule:
            self.schedule.state = state[SCHEDULE]
        if self.source:
            self.source.load_state(state)
        for name in self.states:
            self.states[name] = {key: value.to(device()) for key, value in _under(f"/{name}/", state)}
        for name, head in self.heads.items():
            head.load_state_dict(dict(_under(f"/heads/{name}/", state)))

    def _made_heads(self) -> Iterator[tuple[str, nn.Module]]:
        if self.setting is None:
            return
        teachers = self.setting.models.teacher_shapes if self.setting.models else []
        for name, loss in self.losses.items():
            digest = hashlib.sha256(f"{self.setting.seed} {name}".encode()).digest()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int.from_bytes(digest[:7]))
                head = loss.heads(self.setting.shape, teachers)
            if head is not None:
                yield name, head.to(device()).train()

    def _read_teachers(self, loss: AuxiliaryLoss, batch: TrainingBatch) -> Iterator[tuple[Tensor, ...]]:
        """Yield each teacher's hidden states, computed now or read from what it wrote down."""
        if self.setting is None or (models := self.setting.models) is None:
            return
        for number, shape in enumerate(models.teacher_shapes):
            layers = loss.teacher_layers(shape, number)
            if not layers:
                yield ()
            elif loss.cache:
                assert batch.numbers is not None, "hidden states are kept for blocks of the data"
                kept = models.kept_hidden_states(batch.numbers, number, layers, loss.cache)
                yield tuple(each.to(batch.blocks.device) for each in kept)
            else:
                yield models.hidden_states(batch.blocks[:, :-1], number, layers)


def _check_tensors(part: str, state: State) -> None:
    """Reject a state that a checkpoint cannot hold."""
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"{part} left state[{key!r}] = {value!r:.60}; a state holds tensors, such as torch.tensor(3)"
            )


def _under(prefix: str, state: State) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), each) for name, each in state.items() if name.startswith(prefix))
