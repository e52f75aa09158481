"""A run under way: a model, its optimizer, how far it has come, and one step of it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sweeps.distill.active_method import ActiveMethod
from sweeps.distill.batch_rows import BatchRows, micro_batches
from sweeps.distill.loss import LossRules, token_loss
from sweeps.distill.targets import nonfinite_teacher_error, target_fault
from sweeps.model.chunked_loss import logits_fit
from sweeps.model.compiling.compiled import CompiledBody, compile_blocks, compile_function
from sweeps.model.compiling.used_options import UsedOptions
from sweeps.model.decoder import Decoder
from sweeps.model.device import device, is_out_of_memory
from sweeps.model.distributed import ONE_PROCESS, World
from sweeps.model.frozen import FrozenBody
from sweeps.model.hidden_states import hidden_states
from sweeps.model.language_model import LanguageModel
from sweeps.model.layout import Layout
from sweeps.model.optimizer import Optimizer, learning_rate
from sweeps.model.sharded_optimizer import ShardedOptimizer
from sweeps.model.sharding import evaluation_copy, put
from sweeps.spec.method.run_views import BatchSource, RunSetting, TargetReader, TrainingBatch
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.train.compiled_loss import CompiledLoss, LossOf
from sweeps.train.compiled_step import CompiledLossAndGrad
from sweeps.train.gang import model_at_start, optimizer_of
from sweeps.train.recipe import RunRecipe
from sweeps.train.throughput import PhaseClock

if TYPE_CHECKING:
    from sweeps.distill.models import Models

LOG = logging.getLogger("distlaw")
EXPLODED = 10.0
"""Times the loss of a uniform guess, above which a loss is no longer training."""
LOOK_EVERY = 32
"""Steps between two looks at the loss on a GPU."""
OF_THE_OPTIMISER = {
    "batch_tokens", "warmup_tokens", "learning_rate", "schedule", "decay_fraction", "final_lr_fraction",
    "weight_decay", "max_grad_norm", "micro_batch_tokens", "shard", "recompute", "deterministic",
}  # fmt: skip
"""Rules of training that a loss does not depend on."""
COMPILER_AT_FAULT = (
    "plain PyTorch's is finite on this batch, so the compiler of this machine is at fault: set "
    "training.compile: false for all runs of the law"
)
PIECES_AND_SECONDS, OPTIONS = "/pieces and seconds", "/compiler options"
"""Names in a checkpoint beside weights and moments."""


class Diverged(RuntimeError):
    """The training loss stopped being a number, or exploded."""


@dataclass(kw_only=True, eq=False)
class Run:
    """A run under way. It begins at its newest checkpoint, or where ``start`` ended, or at the beginning."""

    recipe: RunRecipe
    checkpoints: Checkpoints | None = None
    start: Checkpoints | None = None
    init: Mapping[str, Tensor] | None = None
    """Weights that it begins with, if not with drawn ones; they are not kept."""
    world: World = field(default_factory=World)
    models: Models | None = None
    """Frozen models that parts of the method read."""
    layout: Layout = field(default_factory=Layout)
    """Layout on the devices of ``world``."""
    model: Decoder = field(init=False)
    done: int = field(init=False)
    """Optimizer steps taken."""
    began: int = field(init=False)
    """Optimizer steps taken before this process."""
    loss: float = field(init=False, default=math.nan)
    """nats/token, of the last batch that was looked at."""
    seconds: float = field(init=False, default=0.0)
    """Spent on it so far, in earlier processes too."""
    pieces: int = field(init=False)
    """Micro-batches that this process's share of a batch is worked through in."""

    clock: PhaseClock = field(init=False, default_factory=PhaseClock)
    """Seconds by phase, in this process."""

    def __post_init__(self) -> None:
        recipe = self.recipe
        self.method = ActiveMethod(self._setting())
        self.rules = LossRules.of(recipe.training, recipe.method, recipe.shape.context)
        self.model = model_at_start(recipe, self.method, self.init, self.layout, self.world)
        self.init = None
        self.pieces = self._planned_pieces()
        self.optimizer = optimizer_of(self.model, self.method, recipe.training, self.world)
        self.used_options = UsedOptions()
        self._translate()
        self.done = self.began = self._restore()
        self.seconds_before = self.seconds
        self._last: tuple[int, Tensor, Tensor, TargetReader | None, TrainingBatch] | None = None
        if self.checkpoints and self.active and (self.world.leads or self.sharded):
            self.checkpoints.reserve(self.state())
        self._later: BatchRows | None = None

    @property
    def active(self) -> bool:
        """True if there are steps left."""
        return self.done < self.recipe.end

    @property
    def sharded(self) -> bool:
        """True if each process holds a part of the weights only."""
        return isinstance(self.optimizer, ShardedOptimizer)

    @property
    def evaluators(self) -> World:
        """Processes that evaluate it together: those that it is sharded over, else each alone."""
        return self.world if self.sharded else ONE_PROCESS

    @property
    def source(self) -> BatchSource | None:
        """Source of its batches, if its method makes them during the run."""
        return self.method.source

    def step(
        self,
        blocks: Tensor,
        target: TargetReader | None,
        rows: Tensor | BatchRows | None,
        numbers: Tensor | None = None,
    ) -> None:
        """Take one optimizer step on ``blocks`` ``(batch, context + 1)`` of the data.

        ``rows`` are the target's, read or to be read; ``numbers`` ``(batch,)``, which blocks of the stream.

        Raises:
            Diverged: if loss or gradient are no longer finite, naming the step; the weights are then still
                those before it.
            InputError: if that is the teacher's doing.
        """
        started = time.perf_counter()
        recipe = self.recipe
        self._note_teacher(target)
        self._later, read = (rows, None) if isinstance(rows, BatchRows) else (None, rows)
        with self.clock.time("data"):
            batch = self.method.batch(self.model, self.done, blocks, read, target)
        numbers = torch.empty(0) if numbers is None or self.source else numbers
        batch = replace(self.method.weighted(batch, numbers, self.rules.first), numbers=numbers)
        loss = self._backward(batch, target)
        with self.clock.time("communication"):
            self.optimizer.reduce()
        with self.clock.time("optimizer"):
            norm = self.optimizer.clip(recipe.training.max_grad_norm)
        self._last = self.done + 1, self.world.total(loss), norm, target, batch
        if not loss.is_cuda or self.done % LOOK_EVERY == 0 or self.done + 1 == recipe.end:
            self.look()
        rate = learning_rate(self.done, recipe.steps, recipe.training)
        with self.clock.time("optimizer"):
            self.optimizer.step(rate)
        self.method.after_step(self.done, self.model, self._last[1], rate)
        self.done += 1
        self.seconds += time.perf_counter() - started

    def numbers(self) -> dict[str, float]:
        """Return the state of training by the names that experiment trackers group by."""
        rules = self.recipe.training
        return {
            "train/loss": self.loss,
            "train/rate": learning_rate(max(0, self.done - 1), self.recipe.steps, rules),
            "train/tokens": self.done * rules.batch_tokens,
            "train/seconds": self.seconds,
        }

    def look(self) -> None:
        """Check that the last step went well: at once on a CPU; on a GPU looking means waiting for it."""
        if self._last is None:
            return
        step, loss, norm, target, batch = self._last
        self.loss = loss.item()
        limit = EXPLODED * math.log(self.recipe.shape.vocab)
        if self.loss < limit and math.isfinite(norm.item()):
            return
        method = self.recipe.method
        if method and target:
            pieces = micro_batches(batch, self.pieces, self._later)  # all, as a teacher may be sharded
            faults = [target_fault(target, each.rows, method) for each, _ in pieces if each.rows is not None]
            fault = next(filter(None, faults), None)
            if self.world.any(fault is not None):
                raise fault or nonfinite_teacher_error()
        what = "the gradient is not finite" if self.loss < limit else f"the training loss is {self.loss:.4g}"
        advice = "lower learning_rate"
        if self._plain_is_finite(step, batch, target, limit):
            advice = COMPILER_AT_FAULT
        elif method and method.uses_modules:
            advice = f"look for the cause in the parts of {method.name}, or {advice}"
        raise Diverged(f"{what} at step {step} of {self.recipe.steps}; {advice}")

    def save(self) -> None:
        """Write a checkpoint, if this process is one that writes; a large one beside training.

        All processes of a sharded run must call it after the same step.

        Raises:
            Stopped, OSError: if it, or the one before, could not be written.
        """
        self.look()
        if self.checkpoints and (self.world.leads or self.sharded):
            with self.clock.time("checkpoint"):
                self.checkpoints.save(self.done, self.state())

    def prepare_evaluation(self) -> None:
        """Replace a sharded model, which is trained, by one to evaluate; all processes must call it."""
        if self.sharded:
            self.model = evaluation_copy(self.model, self.world)

    def close(self) -> None:
        """Wait for the checkpoint that is being written, if one is.

        Raises:
            Stopped, OSError: if it could not be written.
        """
        if self.checkpoints:
            self.checkpoints.close()

    def state(self) -> dict[str, Tensor]:
        """Return all that the next step depends on: weights, moments, the method's state, pieces."""
        own = {PIECES_AND_SECONDS: torch.tensor([self.pieces, self.seconds], dtype=torch.float64)}
        if self.used_options.names:
            own[OPTIONS] = self.used_options.state()
        own |= self.method.state()
        moments = {f"/{name}": tensor for name, tensor in self.optimizer.state().items()}
        return self.model.state_dict() | moments | own

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        pieces, self.seconds = state[PIECES_AND_SECONDS].tolist()
        self.pieces = max(int(pieces), self._planned_pieces())
        if OPTIONS in state:
            self.used_options.load_state(state[OPTIONS])
        self.method.load_state(state)
        for name, own in self.model.state_dict().items():
            put(own, state[name])
        self.optimizer.load_state({name[1:]: tensor for name, tensor in state.items() if name[0] == "/"})

    def _setting(self) -> RunSetting | None:
        recipe = self.recipe
        if recipe.method is None:
            return None
        return RunSetting(
            method=recipe.method, shape=recipe.shape, seed=recipe.seed, steps=recipe.steps,
            world=self.world, models=self.models,
        )  # fmt: skip

    def _planned_pieces(self) -> int:
        blocks = round(self.recipe.training.batch_tokens / self.recipe.shape.context) // self.world.size
        return self.layout.micro_batches(blocks, self.recipe.shape.context)

    def _translate(self) -> None:
        """Compile the loss if the recipe says so; of a loss over blocks of logits, what comes before."""
        rules, shape = self.recipe.training, self.recipe.shape
        self.gradient: CompiledLossAndGrad | None = None
        self.compiled_loss: CompiledLoss | None = None
        if not rules.compile:
            return
        if isinstance(self.optimizer, ShardedOptimizer):
            compile_blocks(self.model)
            return
        note = self.used_options.note
        if device().type == "cpu" and logits_fit(round(rules.batch_tokens), shape.vocab):
            self.gradient = CompiledLossAndGrad(self._loss, self._key, self.model, self.optimizer, note)
            return
        self.compiled_loss = CompiledLoss(
            self._compiled, self._plain_loss, self._key, self.model, self.optimizer, note
        )

    def _compiled(self) -> LossOf:
        """Return the loss as ``torch.compile`` makes it: all of it, or with blocks of logits the model."""
        if logits_fit(round(self.recipe.training.batch_tokens), self.recipe.shape.vocab):
            return partial(self._loss, self.model, on_tokens=compile_function(token_loss))
        return partial(self._loss, CompiledBody(self.model))

    def _plain_loss(
        self, batch: TrainingBatch, target: TargetReader | None, schedule: Tensor | None
    ) -> Tensor:
        training = self.recipe.training.model_copy(update={"compile": False})
        return self._loss(self.model, batch, target, schedule, rules=replace(self.rules, training=training))

    def _plain_is_finite(
        self, step: int, batch: TrainingBatch, target: TargetReader | None, limit: float
    ) -> bool:
        """Return whether a compiled run's step, the one under way, would not have diverged uncompiled."""
        if not (self.gradient or self.compiled_loss) or self.done + 1 != step:
            return False
        assert isinstance(self.optimizer, Optimizer)
        self.optimizer.clear()
        try:
            losses = []
            for piece, share in micro_batches(batch, self.pieces, self._later):
                loss = self._plain_loss(piece, target, self.method.scheduled) * share
                loss.backward()
                losses.append(loss.item())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return sum(losses) < limit and bool(torch.isfinite(self.optimizer.gradients).all())

    def _note_teacher(self, target: TargetReader | None) -> None:
        """Note the options that the teacher's pass over batches is compiled with."""
        teacher = getattr(target, "teacher", None)
        if isinstance(teacher, FrozenBody) and teacher.library:
            for label, verdict in teacher.library.verdicts.items():
                self.used_options.note(f"teacher {label}", verdict)

    def _restore(self) -> int:
        like = self.state() if self.sharded else None
        if self.checkpoints and (found := self.checkpoints.latest(like)):
            self.load_state(found[1])
            return found[0]
        if self.start and (found := self.start.latest(like)):
            self.load_state(found[1])
            self.seconds = 0.0  # those were the shared prefix's
            return found[0]
        return 0

    def _backward(self, batch: TrainingBatch, target: TargetReader | None) -> Tensor:
        """Leave the gradients of this process's share of the mean loss in the model; return that share."""
        before = self.method.copied_states()
        try:
            return self._backward_in_pieces(batch, target)
        except (RuntimeError, MemoryError) as error:
            halved = self.pieces > self._planned_pieces()
            if not is_out_of_memory(error) or halved or self.sharded or len(batch.blocks) <= self.pieces:
                raise  # other processes of a sharded run wait in the midst of the batch: they begin anew
        self.pieces *= 2  # once; whoever needs more asked for too large a batch
        LOG.warning("memory ran out: each batch is worked through in %d micro-batches now", self.pieces)
        self.optimizer.clear()
        self.method.states = before
        return self._backward_in_pieces(batch, target)

    def _backward_in_pieces(self, batch: TrainingBatch, target: TargetReader | None) -> Tensor:
        total = torch.zeros((), device=batch.blocks.device)
        for piece, share in micro_batches(batch, self.pieces, self._later):
            with self.clock.time("student"):
                total += self._add_gradient(piece, target, share / self.world.size)
        return total

    def _add_gradient(self, batch: TrainingBatch, target: TargetReader | None, share: float) -> Tensor:
        """Add the gradient of ``share`` of the loss to the model's; return that share."""
        schedule = self.method.scheduled
        if self.gradient:
            assert isinstance(self.optimizer, Optimizer)
            loss, gradient = self.gradient(batch, target, schedule)
            self.optimizer.gradients.add_(gradient, alpha=share)
            return loss * share
        if self.compiled_loss:
            return self.compiled_loss(batch, target, schedule, share)
        loss = self._loss(self.model, batch, target, schedule) * share
        loss.backward()
        return loss.detach()

    def _loss(
        self,
        model: LanguageModel,
        batch: TrainingBatch,
        target: TargetReader | None,
        schedule: Tensor | None,
        *,
        on_tokens: Callable[..., Tensor] = token_loss,
        rules: LossRules | None = None,
    ) -> Tensor:
        rules = rules or self.rules
        features = hidden = None
        if self.method.losses:
            features, hidden = hidden_states(model, batch.blocks[:, :-1], self.method.layers(self.model))
        given = (target, batch.rows, schedule, batch.token_inputs, batch.weights, features)
        if rules.method and rules.method.token_loss_weight == 0 and features is not None:
            loss = features[..., :0].sum()  # zero, with a gradient
        else:
            loss = on_tokens(model, batch.blocks, rules, *given)
        if batch.pretraining_blocks is not None and rules.method:
            supervised = on_tokens(model, batch.pretraining_blocks, LossRules(rules.training))
            loss = loss + rules.method.pretraining * supervised
        if hidden is not None:
            loss = loss + self.method.auxiliary_loss(hidden, batch, rules.first)
        return loss

    @property
    def _key(self) -> str:
        """All that :meth:`_loss` depends on."""
        rules = self.recipe.training.model_dump_json(exclude=OF_THE_OPTIMISER)
        return f"{self.recipe.shape} {rules} {self.recipe.method!r}"
