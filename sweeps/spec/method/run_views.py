"""Views of a run and its batches that parts of methods are given, and protocols of what they return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from scaling.costs.flops import ModelShape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sweeps.data.batches import Batches
    from sweeps.distill.models import Models
    from sweeps.model.decoder import Decoder
    from sweeps.model.distributed import World
    from sweeps.spec.method.method import Method

State: TypeAlias = "dict[str, Tensor]"
"""Tensors by name that a part remembers from one optimizer step to the next."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Passes of student and teacher over a token of a batch, on average.

    Writing a token costs a forward pass: keys and values are cached, so a sequence costs one pass over prompt
    and text.
    """

    trained: float = 1.0
    """Passes of the student, forward and backward."""
    written: float = 0.0
    """Forward passes of the student as it writes; under replay at most, as its loss demands."""
    read: float = 0.0
    """Passes of the teacher over what is trained on."""
    written_along: float = 0.0
    """Passes of the teacher where it writes together with the student."""
    written_before: float = 0.0
    """Passes of the teacher for text that it wrote once, as if it did so for this run alone."""


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Batch that one optimizer step learns from."""

    blocks: Tensor
    """Tokens, ``(batch, context + 1)``."""
    rows: Tensor | None = None
    """Rows that the target read of every token but the last, ``(batch * context, ...)``."""
    token_inputs: tuple[Tensor, ...] = ()
    """Further inputs of the source's loss at each counted token, ``(batch, counted)`` each."""
    pretraining_blocks: Tensor | None = None
    """Blocks of the data whose cross-entropy is learned beside, ``(batch, context + 1)``."""
    weights: Tensor | None = None
    """Weight of the loss at each position, ``(batch, context)``, with mean one over the whole batch."""
    numbers: Tensor | None = None
    """Numbers of the blocks in the stream, ``(batch,)``; empty for written text, None in a compiled loss."""

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Return the tensors that a loss on tokens reads, in the order of :meth:`from_tensors`."""
        return (self.blocks, self.rows, self.pretraining_blocks, self.weights, *self.token_inputs)

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor | None]) -> TrainingBatch:
        """Return the batch with these :meth:`tensors`."""
        blocks, rows, beside, weights, *inputs = tensors
        assert blocks is not None
        return cls(blocks, rows, tuple(each for each in inputs if each is not None), beside, weights)

    def pieces(self, size: int) -> Iterator[TrainingBatch]:
        """Yield the batch in parts of ``size`` blocks; the last has what is left."""
        batch = len(self.blocks)
        rows = None if self.rows is None else self.rows.unflatten(0, (batch, -1))
        for first in range(0, batch, size):
            part = slice(first, first + size)
            yield TrainingBatch(
                self.blocks[part],
                None if rows is None else rows[part].flatten(0, 1),
                tuple(each[part] for each in self.token_inputs),
                None if self.pretraining_blocks is None else self.pretraining_blocks[part],
                None if self.weights is None else self.weights[part],
                None if self.numbers is None else self.numbers[part],
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSetting:
    """Facts of the run that a part works in."""

    method: Method
    shape: ModelShape
    seed: int
    steps: int
    """Optimizer steps of the whole run."""
    world: World
    models: Models | None = None
    """Frozen models of the step; None in a run that asks none."""

    @property
    def context(self) -> int:
        """Predicted tokens of a block."""
        return self.shape.context


@dataclass(frozen=True, kw_only=True, slots=True)
class AfterStep:
    """A run after an update of the optimizer, as hooks see it."""

    setting: RunSetting
    step: int
    """Number of the optimizer step just done, from 0."""
    student: Decoder
    """Student, whose parameters may be changed in place."""
    heads: Mapping[str, nn.Module]
    """Trainable parts beside the student, by the name of their auxiliary loss."""
    loss: Tensor
    """Training loss of the step over all processes, nats/token."""
    learning_rate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenStates:
    """Hidden states over a batch, as auxiliary losses see them.

    Layers are numbered as in transformers' ``hidden_states``: 0 is the embedding, the last, -1, what the
    final norm returns. Each is ``(batch, context, width)``.
    """

    inputs: Tensor
    """Tokens, ``(batch, context)``."""
    labels: Tensor
    """The tokens that come next, ``(batch, context)``."""
    student: tuple[Tensor, ...]
    """Hidden states at the student's chosen layers, with gradient."""
    teachers: tuple[tuple[Tensor, ...], ...]
    """Hidden states of each teacher at its chosen layers, without gradient."""
    counted: Tensor
    """True where a position counts, ``(batch, context)``."""
    world: World
    """The processes that train together: ``world.total(tensor)`` adds up what each has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A trained student with all that a metric may need."""

    student: Decoder
    models: Models
    heldout: NDArray[np.integer]
    """Held-out tokens."""
    context: int
    heads: Mapping[str, nn.Module]
    states: Mapping[str, State]
    """States of parts at the end of the run, by name."""
    encode: Callable[[str], list[int]]
    """Tokenizer of the corpus, from a text to tokens: for evaluation sets of a metric's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogProbsView:
    """Both models at the counted tokens of a batch, for sources whose loss weighs them by each other."""

    blocks: int
    """Blocks of the batch; tokens of a block follow each other."""
    difference: Callable[[], Tensor]
    """Computes log p(token) - log q(token) of the text's own tokens at temperature 1, ``(rows,)``."""


class TargetReader(Protocol):
    """A target at work: what a loss over blocks of rows needs, and log-probabilities from that."""

    def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:
        """Return what a loss needs of each token of ``inputs`` ``(batch, time)``: ``(batch * time, ...)``.

        ``numbers`` ``(batch,)`` say which blocks of the stream the inputs are; it is empty for written text.
        """

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """Return the target's log-probabilities, softened by ``temperature``: ``(rows, outcomes)``."""

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:
        """Return the student's ``log_q`` ``(rows, vocab)`` on the outcomes that the target tells apart."""


class ShardFormat(Protocol):
    """Format on disk of what is kept of a token, and how a loss reads it."""

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""

    @property
    def dtype(self) -> np.dtype:
        """Layout of one token on disk."""

    def rows(self, packed: NDArray[np.void]) -> Tensor:
        """Return what a loss needs of what was read, ``(tokens, ...)``."""

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """Return the target's log-probabilities, ``(tokens, outcomes)``."""

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:
        """Return the student's ``log_q`` ``(tokens, vocab)`` on the same outcomes."""


class Schedule(Protocol):
    """A number that a divergence reads at every step and that moves as training goes on."""

    state: Tensor
    """All that the next value depends on; a part of checkpoints."""

    @property
    def value(self) -> Tensor:
        """Return the number for the next optimizer step."""

    def update(self, step: int, loss: Tensor) -> None:
        """Move on after optimizer step ``step``, counted from 0, whose training loss was ``loss``."""


class BatchSource(Protocol):
    """A source of sequences at work in one run."""

    sequences: int
    """Sequences that the student has written so far."""

    def batch(self, student: Decoder, step: int, data: Tensor, target: TargetReader | None) -> TrainingBatch:
        """Return what optimizer step ``step`` learns from, given its batch of the data."""

    def watch(self, data: Batches) -> None:
        """Take note of the data that batches come from."""

    def state(self) -> State:
        """Return all that the next batches depend on, besides the student."""

    def load_state(self, state: State) -> None:
        """Restore what :meth:`state` returned; other names in ``state`` belong to others."""
