"""A run under way: a model, its optimiser, how far it has come, and one step of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from scaling.costs.flops import ModelShape
from sweeps.distill.generated_loss import written_loss
from sweeps.distill.loss import batch_loss
from sweeps.distill.on_policy import Lesson, source_of
from sweeps.distill.taid import Pace
from sweeps.distill.targets import Target, fault
from sweeps.model.chunked_loss import logits_fit
from sweeps.model.compiled import CompiledBody, compile_function
from sweeps.model.decoder import PRECISIONS, Decoder
from sweeps.model.device import device, is_out_of_memory
from sweeps.model.distributed import World
from sweeps.model.frozen import FrozenBody
from sweeps.model.language_model import LanguageModel
from sweeps.model.optimizer import Optimizer, learning_rate, parameter_groups
from sweeps.model.used_options import UsedOptions
from sweeps.spec.method import Method
from sweeps.spec.spec import Training
from sweeps.store.checkpoints import Checkpoints
from sweeps.train.compiled_loss import CompiledLoss, LossOf
from sweeps.train.compiled_step import Gradient

EXPLODED = 10.0
"""Times the loss of a uniform guess, above which a loss is no longer training."""
LOOK_EVERY = 32
"""Steps between two looks at the loss on a GPU."""
OF_THE_OPTIMISER = {
    "batch_tokens", "warmup_tokens", "learning_rate", "schedule", "decay_fraction", "final_lr_fraction",
    "weight_decay", "max_grad_norm",
}  # fmt: skip
"""Of the rules of training, those that a loss does not depend on."""
COMPILER_AT_FAULT = (
    "plain PyTorch's is finite on this batch, so the compiler of this machine is at fault: set "
    "training.compile: false for all runs of the law"
)
PIECES_AND_SECONDS, PACE, OPTIONS = "/pieces and seconds", "/pace", "/compiler options"
"""In a checkpoint, beside weights and moments."""


class Diverged(RuntimeError):
    """The training loss stopped being a number, or exploded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What is trained: on one device the run is a function of this and its data, bit for bit."""

    shape: ModelShape
    steps: int
    """Optimiser steps of the whole schedule."""
    training: Training
    seed: int
    """Of the initialisation."""
    method: Method | None = None
    """How it follows the target, if it has one."""
    stop: int | None = None
    """Where to end in the midst of the schedule, for others to go on from."""

    @property
    def end(self) -> int:
        """The optimiser step it ends at."""
        return self.steps if self.stop is None else self.stop


@dataclass(kw_only=True, eq=False)
class Run:
    """A run under way. It begins at its newest checkpoint, or where ``start`` ended, or at the beginning."""

    recipe: Recipe
    checkpoints: Checkpoints | None = None
    start: Checkpoints | None = None
    init: dict[str, Tensor] | None = None
    """Weights that it begins with, if not with drawn ones."""
    world: World = field(default_factory=World)
    model: Decoder = field(init=False)
    done: int = field(init=False)
    """Optimiser steps taken."""
    began: int = field(init=False)
    """Of these, taken before this process."""
    loss: float = field(init=False, default=math.nan)
    """nats/token, of the last batch that was looked at."""
    seconds: float = field(init=False, default=0.0)
    """Spent on it so far, in earlier processes too."""
    pieces: int = field(init=False, default=1)
    """Parts that a batch is worked through in; more than one where memory is short."""

    def __post_init__(self) -> None:
        self.model = Decoder(self.recipe.shape)
        if self.init:
            self.model.load_state_dict(self.init)
        else:
            self.model.initialise(self.recipe.seed)
        self.model.to(device()).train()
        self.model.precision = PRECISIONS[self.recipe.training.precision]
        self.optimiser = Optimizer(parameter_groups(self.model, self.recipe.training))
        moving = self.recipe.method and self.recipe.method.taid
        self.pace = Pace(moving, self.recipe.steps) if moving else None
        recipe = self.recipe
        self.source = source_of(recipe.method, recipe.shape.context, recipe.seed, recipe.steps, self.world)
        self.used_options = UsedOptions()
        self._translate()
        self.done = self.began = self._restore()
        self._last: tuple[int, Tensor, Tensor, Target | None, Lesson] | None = None

    @property
    def active(self) -> bool:
        """Whether there are steps left."""
        return self.done < self.recipe.end

    def step(self, blocks: Tensor, target: Target | None, rows: Tensor | None) -> None:
        """One optimiser step on ``blocks`` ``(batch, context + 1)``; ``rows`` are the target's.

        Raises:
            Stopped: if this process has to leave the step.
            Diverged: if loss or gradient are no longer finite, naming the step; the weights are then still
                those before it.
            InputError: if that is the teacher's doing.
        """
        if self.checkpoints:
            self.checkpoints.look()
        started = time.perf_counter()
        recipe = self.recipe
        self._note_teacher(target)
        lesson = Lesson(blocks, rows)
        if self.source:
            assert target is not None, "who follows nobody writes nothing"
            lesson = self.source.lesson(self.model, self.done, blocks, target)
        loss = self._backward(lesson, target)
        self.world.total(self.optimiser.gradients)
        norm = self.optimiser.clip(recipe.training.max_grad_norm)
        self._last = self.done + 1, self.world.total(loss), norm, target, lesson
        if not loss.is_cuda or self.done % LOOK_EVERY == 0 or self.done + 1 == recipe.end:
            self.look()
        self.optimiser.step(learning_rate(self.done, recipe.steps, recipe.training))
        if self.pace:
            self.pace.update(self.done, self._last[1])
        self.done += 1
        self.seconds += time.perf_counter() - started

    def numbers(self) -> dict[str, float]:
        """What can be said of it now, by the names that experiment trackers group by."""
        rules = self.recipe.training
        return {
            "train/loss": self.loss,
            "train/rate": learning_rate(max(0, self.done - 1), self.recipe.steps, rules),
            "train/tokens": self.done * rules.batch_tokens,
            "train/seconds": self.seconds,
        }

    def look(self) -> None:
        """See whether the last step went well: at once on a CPU; on a GPU looking means waiting for it."""
        if self._last is None:
            return
        step, loss, norm, target, lesson = self._last
        rows = lesson.rows
        self.loss = loss.item()
        limit = EXPLODED * math.log(self.recipe.shape.vocab)
        if self.loss < limit and math.isfinite(norm.item()):
            return
        method = self.recipe.method
        if method and target and rows is not None and (found := fault(target, rows, method.divergence)):
            raise found
        what = "the gradient is not finite" if self.loss < limit else f"the training loss is {self.loss:.4g}"
        advice = (
            COMPILER_AT_FAULT if self._plain_is_finite(step, lesson, target, limit) else "lower learning_rate"
        )
        raise Diverged(f"{what} at step {step} of {self.recipe.steps}; {advice}")

    def save(self) -> None:
        """Write a checkpoint, if this process is the one that writes."""
        self.look()
        if self.checkpoints and self.world.leads:
            self.checkpoints.save(self.done, self.state())

    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on: weights, moments, pace, how batches are split."""
        own = {PIECES_AND_SECONDS: torch.tensor([self.pieces, self.seconds], dtype=torch.float64)}
        if self.pace:
            own[PACE] = self.pace.state
        if self.used_options.names:
            own[OPTIONS] = self.used_options.state()
        if self.source:
            own |= self.source.state()
        moments = {f"/{name}": tensor for name, tensor in self.optimiser.state().items()}
        return self.model.state_dict() | moments | own

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of :meth:`state`."""
        pieces, self.seconds = state[PIECES_AND_SECONDS].tolist()
        self.pieces = int(pieces)
        if self.pace:
            self.pace.state = state[PACE]
        if OPTIONS in state:
            self.used_options.load_state(state[OPTIONS])
        if self.source:
            self.source.load_state(state)
        self.model.load_state_dict({name: tensor for name, tensor in state.items() if "/" not in name})
        self.optimiser.load_state({name[1:]: tensor for name, tensor in state.items() if name[0] == "/"})

    def _translate(self) -> None:
        """Where the recipe says so, compile the loss, or if it goes over blocks of logits what is before."""
        rules, shape = self.recipe.training, self.recipe.shape
        self.gradient: Gradient | None = None
        self.compiled_loss: CompiledLoss | None = None
        if not rules.compile:
            return
        note = self.used_options.note
        if device().type == "cpu" and logits_fit(round(rules.batch_tokens), shape.vocab):
            self.gradient = Gradient(self._loss, self._key, self.model, self.optimiser, note)
            return
        self.compiled_loss = CompiledLoss(
            self._compiled, self._plain_loss, self._key, self.model, self.optimiser, note
        )

    def _compiled(self) -> LossOf:
        """Return the loss as ``torch.compile`` makes it: all of it, or with blocks of logits the model."""
        if logits_fit(round(self.recipe.training.batch_tokens), self.recipe.shape.vocab):
            return partial(
                self._loss, self.model, losses=(compile_function(batch_loss), compile_function(written_loss))
            )
        return partial(self._loss, CompiledBody(self.model))

    def _plain_loss(self, lesson: Lesson, target: Target | None, t: Tensor | None) -> Tensor:
        training = self.recipe.training.model_copy(update={"compile": False})
        return self._loss(self.model, lesson, target, t, training=training)

    def _plain_is_finite(self, step: int, lesson: Lesson, target: Target | None, limit: float) -> bool:
        """Return whether a compiled run's step, the one under way, would not have diverged uncompiled."""
        if not self.recipe.training.compile or self.done + 1 != step:
            return False
        self.optimiser.clear()
        try:
            loss = self._plain_loss(lesson, target, self.pace.t if self.pace else None)
            loss.backward()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return loss.item() < limit and bool(torch.isfinite(self.optimiser.gradients).all())

    def _note_teacher(self, target: Target | None) -> None:
        """Note the options that the teacher's pass over batches is compiled with."""
        teacher = getattr(target, "teacher", None)
        if isinstance(teacher, FrozenBody) and teacher.library:
            for label, verdict in teacher.library.verdicts.items():
                self.used_options.note(f"teacher {label}", verdict)

    def _restore(self) -> int:
        if self.checkpoints and (found := self.checkpoints.latest()):
            self.load_state(found[1])
            return found[0]
        if self.start and (found := self.start.latest()):
            self.load_state(found[1])
            self.seconds = 0.0  # those were the trunk's
            return found[0]
        return 0

    def _backward(self, lesson: Lesson, target: Target | None) -> Tensor:
        """Leave the gradients of this process's share of the mean loss in the model; return that share."""
        try:
            return self._backward_in_pieces(lesson, target)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.pieces > 1 or len(lesson.blocks) == 1:
                raise
        self.pieces = 2  # once; whoever needs more asked for too large a batch
        self.optimiser.clear()
        return self._backward_in_pieces(lesson, target)

    def _backward_in_pieces(self, lesson: Lesson, target: Target | None) -> Tensor:
        batch = len(lesson.blocks)
        total = torch.zeros((), device=lesson.blocks.device)
        for piece in lesson.pieces(math.ceil(batch / self.pieces)):
            total += self._learnt(piece, target, len(piece.blocks) / batch / self.world.size)
        return total

    def _learnt(self, lesson: Lesson, target: Target | None, share: float) -> Tensor:
        """Add the gradient of ``share`` of the loss to the model's; return that share."""
        t = self.pace.t if self.pace else None
        if self.gradient:
            loss, gradient = self.gradient(lesson, target, t)
            self.optimiser.gradients.add_(gradient, alpha=share)
            return loss * share
        if self.compiled_loss:
            return self.compiled_loss(lesson, target, t, share)
        loss = self._loss(self.model, lesson, target, t) * share
        loss.backward()
        return loss.detach()

    def _loss(
        self,
        model: LanguageModel,
        lesson: Lesson,
        target: Target | None,
        t: Tensor | None,
        *,
        losses: tuple[Callable[..., Tensor], Callable[..., Tensor]] = (batch_loss, written_loss),
        training: Training | None = None,
    ) -> Tensor:
        training, method = training or self.recipe.training, self.recipe.method
        of_data, of_text = losses
        if method is None or method.source.by == "data":
            return of_data(model, lesson.blocks, training, method, target, lesson.rows, t)
        loss = of_text(model, lesson.blocks, training, method, target, lesson.rows, *lesson.of_tokens)
        if lesson.beside is not None:
            loss = loss + method.pretraining * of_data(model, lesson.beside, training)
        return loss

    @property
    def _key(self) -> str:
        """All that :meth:`_loss` depends on."""
        rules = self.recipe.training.model_dump_json(exclude=OF_THE_OPTIMISER)
        return f"{self.recipe.shape} {rules} {self.recipe.method!r}"
