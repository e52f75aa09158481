"""The distribution that a student is pulled towards, and how a loss gets at it.

A target gives, once a batch, the rows that a loss over blocks of rows needs; and from such rows the teacher's
log-probabilities. Students that share a teacher and the order of the data share the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from scaling.errors import InputError
from sweeps.distill.divergences import DIVERGENCES
from sweeps.distill.logit_format import Kept
from sweeps.distill.shard_cache import Logits
from sweeps.model.language_model import LanguageModel
from sweeps.model.log_probs import log_probabilities

ROWS_AT_ONCE = 1024
"""Rows whose log-probabilities are held while a fault is looked for."""


def no_numbers() -> InputError:
    """For a teacher whose outputs are not all finite."""
    return InputError("the teacher: its outputs are not all finite numbers; distil from another")


class Target(Protocol):
    """A teacher's distribution over the next token."""

    def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:
        """What a loss needs of each token of ``inputs`` ``(batch, time)``: ``(batch * time, ...)``.

        ``numbers`` ``(batch,)`` say which blocks of the stream the inputs are.
        """

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """The teacher's, softened by ``temperature``: ``(rows, outcomes)``."""

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:
        """The student's ``log_q`` ``(rows, vocab)`` on the outcomes that the target tells apart."""


def fault(target: Target, rows: Tensor, divergence: str) -> InputError | None:
    """Return the error of the teacher that explains a loss or gradient that is not finite, or None."""
    for some in rows.split(ROWS_AT_ONCE):
        log_p = target.log_probabilities(some, 1.0)
        if some.isnan().any() or log_p.isnan().any():
            return no_numbers()
        if DIVERGENCES[divergence].needs_every_token and log_p.isneginf().any():
            others = ", ".join(name for name, each in DIVERGENCES.items() if not each.needs_every_token)
            return InputError(
                f"divergence: {divergence} is infinite where a teacher gives a token no probability, as this "
                f"one does; choose one that is not ({others}), or distil from another"
            )
    return None


@dataclass(frozen=True, slots=True)
class Online:
    """A frozen teacher that reads every batch itself."""

    teacher: LanguageModel
    said: bool = False
    """Whether its rows are what it says, for batches whose logits can be held, or features that say it."""

    @torch.no_grad()
    def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:  # noqa: ARG002
        """The teacher's log-probabilities, or features."""
        features = self.teacher.model(inputs).flatten(0, 1)
        return log_probabilities(F.linear(features, self.teacher.head)) if self.said else features

    @torch.no_grad()
    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """From its rows, ``(rows, vocab)``."""
        if not self.said:
            return log_probabilities(F.linear(rows, self.teacher.head), temperature)
        return rows if temperature == 1 else log_probabilities(rows, temperature)

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG002
        """Every token is one."""
        return log_q


@dataclass(frozen=True, slots=True)
class Cached:
    """A teacher whose distributions were written down before."""

    kept: Kept
    logits: Logits

    def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:
        """What was written down."""
        packed = self.logits.of(numbers.numpy()).reshape(-1)
        return self.kept.rows(packed).to(inputs.device)

    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """As they were kept."""
        return self.kept.log_probabilities(rows, temperature)

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:
        """Those that were kept."""
        return self.kept.outcomes(log_q, rows)
