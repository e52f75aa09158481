"""Interfaces of the parts that a distillation method is made of: subclass one, and name it in a spec.

A part is a frozen Pydantic model: its annotated fields are its options, read from the spec by the same
grammar as every other field. Planning asks it what it costs, what it needs and what it cannot be combined
with; a run asks it to do its work. Whatever it must remember from one optimizer step to the next lies in a
``state``, a dictionary of tensors that the run keeps, hands to every call and writes into checkpoints.

Nothing here imports PyTorch, so that plans stay light.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from scaling.costs.flops import FORWARDS_PER_STEP, ModelShape
from sweeps.spec.fields import Number, SpecModel
from sweeps.spec.hidden_layers import StoredPrecision
from sweeps.spec.method.run_views import (
    AfterStep,
    BatchSource,
    Evaluation,
    HiddenStates,
    LogProbsView,
    Passes,
    RunSetting,
    Schedule,
    ShardFormat,
    State,
    TargetReader,
    TrainingBatch,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sweeps.dag.step import Step
    from sweeps.data.batches import Batches
    from sweeps.distill.models import Models
    from sweeps.model.decoder import Decoder
    from sweeps.spec.method.method import Method
    from sweeps.spec.spec import Sweep


class MethodPart(SpecModel, ABC):
    """A part of a method; its fields are its options."""

    slot: ClassVar[str]
    """Field of a method that takes such parts."""
    version: ClassVar[str | None] = None
    """Enters the ids of steps in place of the hash of the module's source: change it with the numbers."""
    depends_on_total_steps: ClassVar[bool] = False
    """True if a run's first steps depend on how long it will be, so that it shares no prefix with others."""

    @classmethod
    def from_method(cls, method: Method) -> MethodPart:
        """Return the part with the options that ``method`` has as its own fields, for parts that ship."""
        return cls(**{name: getattr(method, name) for name in cls.model_fields})

    def objections(self, method: Method) -> Iterator[str]:
        """Yield why this part cannot be in ``method``, as ``FIELD: reason; what would be right``."""
        yield from ()

    def sweep_objections(self, sweep: Sweep, method: Method) -> Iterator[str]:
        """Yield why ``method`` cannot be run under the corpus and training rules of ``sweep``, likewise."""
        yield from ()

    def text_objections(self, tokens: float) -> Iterator[str]:
        """Yield why this part cannot work on students' text of so many training tokens, likewise."""
        yield from ()


class Divergence(MethodPart):
    """Distance between the distributions of target and student over the next token."""

    slot: ClassVar[str] = "divergence"
    temperature_power: ClassVar[int] = 2
    """Power of the temperature that keeps gradients alike as it grows: 2, and 1 for total variation."""
    reads_labels: ClassVar[bool] = False
    """True if it singles out the text's own token, which then must be among the outcomes."""
    needs_every_token: ClassVar[bool] = False
    """True if it is infinite where the target excludes a token."""

    @abstractmethod
    def per_token(self, log_p: Tensor, log_q: Tensor, labels: Tensor, *schedule: Tensor) -> Tensor:
        """Return the loss of each row in nats, ``(rows,)``; rows must not affect each other.

        Args:
            log_p: Log-probabilities of the target, ``(rows, outcomes)``, without gradient, in float32.
            log_q: Those of the student.
            labels: The text's own tokens, ``(rows,)``.
            schedule: The value of :meth:`schedule`, if there is one.
        """

    def scaled(
        self, log_p: Tensor, log_q: Tensor, labels: Tensor, temperature: float = 1.0, *schedule: Tensor
    ) -> Tensor:
        """Return tau^power D(p, q) of log-probabilities that are at this temperature already, ``(rows,)``.

        With forward KL this is the loss of Busbridge et al. 2025 (Eqs. 4-7) less the teacher's entropy, which
        has the same gradient.
        """
        loss = self.per_token(log_p, log_q, labels, *schedule)
        return loss * temperature**self.temperature_power

    def schedule(self, steps: int) -> Schedule | None:
        """Return the number that the divergence reads at each of the run's ``steps``, if it reads one."""
        return None

    def fused(self, training: Any, temperature: float) -> Callable[..., Tensor] | None:
        """Return a loss of logits with a gradient written by hand, or None.

        It takes ``(logits, log_p, labels, cross_entropy, z_loss)``, see
        :func:`sweeps.distill.divergences.guided_loss`.
        """
        return None


class Target(MethodPart):
    """Distribution over the next token that the student is pulled to.

    A target in one function defines :meth:`log_p`. One that must not hold a distribution for every token of a
    batch, or whose outcomes are not the vocabulary, defines :meth:`open` instead.
    """

    slot: ClassVar[str] = "target"
    cacheable: ClassVar[bool] = False
    """True if ``logits: cached`` may keep it: a function of the frozen models and the data alone."""
    reads_other_teachers: ClassVar[bool] = False
    """True if it reads batches with the method's ``other_teachers`` too."""

    def log_p(self, models: Models, inputs: Tensor, numbers: Tensor) -> Tensor:
        """Return the target's log-probabilities after each token of ``inputs`` ``(batch, time)``.

        Args:
            models: The step's frozen models.
            inputs: Token ids.
            numbers: Which blocks of the stream they are, ``(batch,)``; empty for text that models wrote.

        Returns:
            ``(batch, time, vocab)``, normalized; -inf excludes a token.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither log_p nor open")

    def mask(self, models: Models, inputs: Tensor, numbers: Tensor) -> Tensor | None:
        """Return which positions count, ``(batch, time)`` bool; None for all."""
        return None

    def open(self, models: Models) -> TargetReader | None:
        """Return the target at work, once in a process; None if :meth:`log_p` says all."""
        return None

    def needs(self, step: Step) -> tuple[Step, ...]:
        """Return the steps that must be done before it besides the teacher and the prelude."""
        return ()

    def forward_flops(self, step: Step) -> tuple[float, ...]:
        """Return the FLOPs a token of each pass over a batch that the target takes."""
        assert step.teacher is not None
        return (step.teacher.shape.forward_flops,)

    def setup_flops(self, step: Step) -> float:
        """Return the FLOPs spent once, before the first batch."""
        return 0.0

    def sharing_key(self, step: Step) -> Hashable:
        """Return what runs of one teacher must have in common to share the target's pass over a batch."""
        return self

    def cache_method(self, method: Method) -> Method | None:
        """Return the method of the step that writes the target down once for all runs, if one does."""
        if method.logits == "online" or not self.cacheable:
            return None
        return type(method)(**method.stored_logits, target=method.target)

    def cache_keeps_prelude(self) -> bool:
        """Return True if what is written down depends on the student's prelude."""
        return False

    def storage(self, method: Method, vocab: int) -> ShardFormat | None:
        """Return how the target is kept on disk; None for log-probabilities, as ``logits`` says."""
        return None

    def writer(
        self,
        models: Models,
        data: Batches,
        storage: ShardFormat,
    ) -> Callable[[NDArray[np.int64]], NDArray[np.void]] | None:
        """Return the function from numbers of blocks to what is kept of them, ``(blocks, context)``.

        None where :meth:`storage` is.
        """
        return None


class SequenceSource(MethodPart):
    """Text that a student is trained on.

    A source that writes once, before training, defines :meth:`write` and sets ``writes_before``: a step of
    its own runs it, and every run that asks for the same text reads what that step left. A source that makes
    each batch as training goes on defines :meth:`batch`, with what it remembers in the state.
    """

    slot: ClassVar[str] = "source"
    writes_before: ClassVar[bool] = False
    """True if a step before training writes the text."""
    writes_along: ClassVar[bool] = False
    """True if batches are made during the run, by the student or for it alone."""
    is_data: ClassVar[bool] = False
    """True if it is the corpus's own text, all of which counts."""

    def passes(self, method: Method) -> Passes:
        """Return the passes of student and teacher over a token of a batch."""
        return Passes(
            read=1.0 if method.reads_teacher else 0.0, written_before=1.0 if self.writes_before else 0.0
        )

    def prompt_tokens(self, context: int) -> int:
        """Return how many first tokens of a block are a prompt, which the loss does not count."""
        return 0

    def identity(self) -> dict[str, Any]:
        """Return what enters the ids of steps besides the options."""
        return {}

    def text_method(self, method: Method) -> Method | None:
        """Return the method of the step that writes the text, if one does."""
        if not self.writes_before:
            return None
        return type(method)(source=method.source)

    def write(self, models: Models, data: Batches, numbers: Tensor) -> Tensor:
        """Return text in the place of the given blocks of the data: tokens ``(blocks, context + 1)``.

        The same numbers must give the same text, whoever asks: draw from a generator seeded by
        ``data.seed`` and the number of the block.
        """
        raise NotImplementedError(f"{type(self).__name__} writes nothing before training")

    def teacher_tokens(self, tokens: float) -> float:
        """Return the tokens that the teacher reads or writes for ``tokens`` tokens of text written before."""
        return tokens

    def text_columns(self, models: Models, data: Batches) -> dict[str, float]:
        """Return numbers about the text, once it is written, by names of columns in the runs table.

        Every run that learns from the text has them; none may be negative. Epochs are those of a text of
        ``text_tokens`` tokens, if that is among them.
        """
        return {}

    def initial_state(self, setting: RunSetting) -> State:
        """Return what the source remembers at the beginning of a run."""
        return {}

    def batch(
        self, setting: RunSetting, student: Decoder, step: int, data: Tensor, state: State
    ) -> TrainingBatch:
        """Return what optimizer step ``step`` learns from, given its batch of the data.

        Its ``rows`` may be left None: the run asks the target for them. Change ``state`` by assigning to it.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no batches")

    def start(self, setting: RunSetting) -> BatchSource | None:
        """Return the source at work in a run; None if :meth:`batch` or :meth:`write` says all."""
        return None

    def token_loss(
        self,
        method: Method,
        divergence: Divergence,
        log_p: Tensor,
        log_q: Tensor,
        labels: Tensor,
        schedule: tuple[Tensor, ...],
        *token_inputs: Tensor,
    ) -> Tensor:
        """Return the loss of each counted token, ``(rows,)``; ``token_inputs`` are the batch's."""
        return divergence.scaled(log_p, log_q, labels, method.temperature, *schedule)

    def more_token_inputs(self, view: LogProbsView) -> tuple[Tensor, ...]:
        """Return what :meth:`token_loss` needs besides, computed from both models, ``(rows,)`` each."""
        return ()


class StepPart(MethodPart):
    """A part that acts after every update of the optimizer, and may remember something."""

    def initial_state(self, setting: RunSetting) -> State:
        """Return what the part remembers at the beginning of a run."""
        return {}

    def after_step(self, run: AfterStep, state: State) -> None:
        """Look at the run, or change the student's parameters in place, under ``torch.no_grad``.

        Change ``state`` by assigning to it.
        """


class AuxiliaryLoss(StepPart):
    """A loss beside the one on tokens, on hidden states of student and teachers, with heads if it needs them.

    Heads are optimized with the student, by the same rule of learning rates, and kept in checkpoints. They
    are not part of the model that is measured and saved, nor of N; their FLOPs are counted.
    """

    slot: ClassVar[str] = "auxiliary_losses"
    weight: Number = 1.0
    """Weight of the loss beside the loss on tokens."""
    cache: StoredPrecision | None = None
    """Precision in which the teachers' hidden states are written down once, as they are, for all runs to
    read; without it the teachers read every batch."""

    def student_layers(self, student: ModelShape) -> Sequence[int]:
        """Return the student's layers that are read; numbers as in :class:`HiddenStates`."""
        return ()

    def teacher_layers(self, teacher: ModelShape, number: int) -> Sequence[int]:
        """Return the layers that are read of teacher ``number``: 0 is the step's own, then the others."""
        return ()

    def heads(self, student: ModelShape, teachers: Sequence[ModelShape]) -> nn.Module | None:
        """Return the trainable parts beside the student; drawn under a generator seeded by the run."""
        return None

    @abstractmethod
    def per_token(self, hidden: HiddenStates, heads: nn.Module | None, state: State) -> Tensor:
        """Return the loss at each position, ``(batch, context)``; those that do not count are left out."""

    def flops_per_token(self, student: ModelShape, teachers: Sequence[ModelShape]) -> float:
        """Return the FLOPs of training the heads on a token: by default three products with each matrix."""
        heads = self._heads_on_meta(student, teachers)
        matrices = [each for each in heads.parameters() if each.ndim > 1] if heads else []
        return FORWARDS_PER_STEP * 2.0 * sum(each.numel() for each in matrices)

    def head_params(self, student: ModelShape, teachers: Sequence[ModelShape]) -> float:
        """Return the parameters of the heads, which the estimate of memory counts."""
        heads = self._heads_on_meta(student, teachers)
        return float(sum(each.numel() for each in heads.parameters())) if heads else 0.0

    def state_bytes(self, teachers: Sequence[ModelShape]) -> float:
        """Return the most bytes that the state holds in a run, for the estimate of memory."""
        return 0.0

    def reading_flops(self, teachers: Sequence[ModelShape]) -> float:
        """Return the FLOPs of the teachers' passes over a token for this loss."""
        read = (each for number, each in enumerate(teachers) if self.teacher_layers(each, number))
        return sum(each.forward_flops for each in read)

    def _heads_on_meta(self, student: ModelShape, teachers: Sequence[ModelShape]) -> nn.Module | None:
        import torch

        with torch.device("meta"):
            return self.heads(student, teachers)


class Hook(StepPart):
    """Action after every update of the optimizer, such as a constraint on the weights."""

    slot: ClassVar[str] = "hooks"

    @abstractmethod
    def after_step(self, run: AfterStep, state: State) -> None:
        """Look at the run, or change the student's parameters in place, under ``torch.no_grad``.

        Change ``state`` by assigning to it.
        """


class Metric(MethodPart):
    """A measurement of a trained student beside its held-out loss."""

    slot: ClassVar[str] = "metrics"

    @abstractmethod
    def measure(self, evaluation: Evaluation) -> dict[str, float]:
        """Return numbers by the names of their columns in the runs table."""


class InitialWeights(MethodPart):
    """Weights that a student begins with, where they are not drawn."""

    slot: ClassVar[str] = "initial_weights"

    @abstractmethod
    def weights(self, setting: RunSetting, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return all weights of the student by name; ``drawn`` are those that it would begin with."""


SLOTS: dict[str, type[MethodPart]] = {
    part.slot: part
    for part in (Divergence, Target, SequenceSource, AuxiliaryLoss, Hook, Metric, InitialWeights)
}
"""Interfaces by the field of a method that takes them."""
