"""Targets at work: how a loss gets at the distribution that a student is pulled to.

A target gives, once a batch, the rows that a loss over blocks of rows needs; and from such rows the teacher's
log-probabilities. Students that share a teacher and the order of the data share the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scaling.errors import InputError
from sweeps.distill.caches.shard_cache import Numbers, Shards
from sweeps.model.language_model import LanguageModel, logits_of
from sweeps.model.log_probs import log_probabilities
from sweeps.spec.method.interfaces import Target
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.method.registry import divergences
from sweeps.spec.method.run_views import ShardFormat, TargetReader

if TYPE_CHECKING:
    from sweeps.distill.models import Models

ROWS_AT_ONCE = 1024
"""Rows whose log-probabilities are held while a fault is looked for."""


def nonfinite_teacher_error() -> InputError:
    """Return the error for a teacher whose outputs are not all finite."""
    return InputError("the teacher: its outputs are not all finite numbers; distil from another")


def target_fault(target: TargetReader, rows: Tensor, method: Method) -> InputError | None:
    """Return the error of the teacher that explains a loss or gradient that is not finite, or None."""
    needs_every_token = parts_of(method).divergence.needs_every_token
    finite = [name for name, kind in divergences().items() if not kind.needs_every_token]
    for some in rows.split(ROWS_AT_ONCE):
        log_p = target.log_probabilities(some, 1.0)
        if some.isnan().any() or log_p.isnan().any():
            return nonfinite_teacher_error()
        if needs_every_token and log_p.isneginf().any():
            return InputError(
                f"divergence: {method.divergence_label} is infinite where a teacher gives a token no "
                f"probability, as this one does; choose one that is not ({', '.join(finite)}), "
                "or distil from another"
            )
    return None


def opened(target: Target, models: Models) -> TargetReader:
    """Return ``target`` at work on a step's models."""
    return target.open(models) or Dense(target, models)


@dataclass(frozen=True, slots=True)
class Online:
    """A frozen teacher that reads every batch itself."""

    teacher: LanguageModel
    returns_log_probs: bool = False
    """True if its rows are log-probabilities, for batches whose logits can be held; else features."""

    @torch.no_grad()
    def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:  # noqa: ARG002
        """Return the teacher's log-probabilities, or features."""
        features = self.teacher.model(inputs).flatten(0, 1)
        return log_probabilities(logits_of(self.teacher, features)) if self.returns_log_probs else features

    @torch.no_grad()
    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """Return log-probabilities of rows, ``(rows, vocab)``."""
        if not self.returns_log_probs:
            return log_probabilities(logits_of(self.teacher, rows), temperature)
        return rows if temperature == 1 else log_probabilities(rows, temperature)

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG002
        """Return ``log_q``: every token is an outcome."""
        return log_q


@dataclass(frozen=True, slots=True)
class Cached:
    """Distributions that a teacher wrote down before."""

    kept: ShardFormat
    logits: Shards

    def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:
        """Return what was written down."""
        packed = self.logits.of(numbers.numpy()).reshape(-1)
        return self.kept.rows(packed).to(inputs.device)

    def read_ahead(self, order: Iterator[Numbers]) -> None:
        """Read what the batches to come need, given the numbers of their blocks."""
        self.logits.read_ahead(order)

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """Return log-probabilities of the outcomes that were kept."""
        return self.kept.log_probabilities(rows, temperature)

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:
        """Return ``log_q`` on the outcomes that were kept."""
        return self.kept.outcomes(log_q, rows)


@dataclass(frozen=True, slots=True)
class Dense:
    """A target that says all by its function ``log_p``."""

    target: Target
    models: Models

    @torch.no_grad()
    def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:
        """Return log-probabilities ``(batch * time, vocab)``.

        Raises:
            InputError: if they have another shape.
        """
        log_p = self.target.log_p(self.models, inputs, numbers)
        if log_p.shape[:-1] != inputs.shape:
            raise InputError(
                f"target: {type(self.target).__name__}.log_p returned {tuple(log_p.shape)} for inputs of "
                f"{tuple(inputs.shape)}; it must be (batch, time, vocab)"
            )
        return log_p.flatten(0, 1)

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """Return them softened by ``temperature``."""
        return rows if temperature == 1 else log_probabilities(rows, temperature)

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG002
        """Return ``log_q``: every token is an outcome."""
        return log_q
