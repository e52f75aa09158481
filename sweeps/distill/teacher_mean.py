"""Mean of the distributions of several teachers: an ensemble as a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweeps.model.language_model import LanguageModel, logits_of
from sweeps.model.log_probs import log_probabilities


def log_mean(log_p: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return the logarithm of the mean of distributions ``log_p``, each ``(..., vocab)``, by ``shares``."""
    mixed = torch.stack([each + math.log(share) for each, share in zip(log_p, shares, strict=True)])
    return mixed.logsumexp(0)


@dataclass(frozen=True, slots=True)
class MeanOfTeachers:
    """Weighted mean of the distributions of frozen teachers, as a target whose rows all of them read."""

    teachers: tuple[LanguageModel, ...]
    shares: tuple[float, ...]
    """Shares of the teachers in the mean, their sum one."""
    returns_log_probs: bool = False
    """True if its rows are log-probabilities, for batches whose logits can be held; else features."""

    @torch.no_grad()
    def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:  # noqa: ARG002
        """Return for each token of ``inputs`` ``(batch, time)`` the mean, or features side by side."""
        features = [each.model(inputs).flatten(0, 1) for each in self.teachers]
        return self._mean(features) if self.returns_log_probs else torch.cat(features, -1)

    @torch.no_grad()
    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """Return log-probabilities of rows, ``(rows, vocab)``; the mean is softened, not its terms."""
        widths = [each.head.shape[1] for each in self.teachers]
        log_p = rows if self.returns_log_probs else self._mean(rows.split(widths, -1))
        return log_p if temperature == 1 else log_probabilities(log_p, temperature)

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG002
        """Return ``log_q``: every token is an outcome."""
        return log_q

    def _mean(self, features: Sequence[Tensor]) -> Tensor:
        each = [
            log_probabilities(logits_of(teacher, own.to(teacher.head.dtype)))
            for teacher, own in zip(self.teachers, features, strict=True)
        ]
        return log_mean(each, self.shares)
