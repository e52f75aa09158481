"""Delta-KD (Cao et al. 2025, arXiv 2509.14526): a student follows how its teacher was tuned, not the teacher.

The target is the student's own base, moved as the tuning moved the teacher from its base::

    log pi*  =  log s_0 + strength (log t_1 - log t_0) - log Z

All three are frozen. It is what stays nearest to the student's base, by KL(pi || s_0), while it earns the
teachers' log ratio as a reward. The paper's own operator was not available to its readers here: this is the
one of emulated fine-tuning (Mitchell et al. 2023) with sizes swapped, which fits all that it says of it.

Where neither teacher expects a token, their ratio is noise on a logarithmic scale, and could win. So a token
that is unlikely both for the tuned teacher and for the student's base, beside the likeliest, keeps the base's
share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sweeps.model.language_model import LanguageModel, logits_of
from sweeps.model.log_probs import log_probabilities
from sweeps.spec.method.method_options import Delta


def shifted(s_0: Tensor, t_0: Tensor, t_1: Tensor, strength: float = 1.0, tail: float = 0.0) -> Tensor:
    """Return log pi* of log-probabilities of the student's base, the teacher's base and the tuned teacher.

    Tokens below ``tail`` times the likeliest, both in ``t_1`` and in ``s_0``, are not shifted, nor are those
    that ``t_0`` excludes: their ratio is unknown.
    """
    if not strength:
        return log_probabilities(s_0)
    shift = torch.where(t_0.isneginf(), 0.0, t_1 - t_0)
    if tail:
        known = [log_p >= log_p.amax(-1, keepdim=True) + math.log(tail) for log_p in (t_1, s_0)]
        shift = torch.where(known[0] | known[1], shift, 0.0)
    return log_probabilities(s_0 + strength * shift)


@dataclass(frozen=True, slots=True)
class Shifted:
    """The shifted base of a student: a target whose rows three frozen models read."""

    student_base: LanguageModel
    teacher_base: LanguageModel
    tuned: LanguageModel
    rules: Delta
    returns_log_probs: bool = False
    """True if its rows are log-probabilities, for batches whose logits can be held; else features."""

    @torch.no_grad()
    def rows(self, inputs: Tensor, numbers: Tensor) -> Tensor:  # noqa: ARG002
        """Return for each token of ``inputs`` ``(batch, time)`` the target, or features side by side."""
        features = torch.cat([model.model(inputs).flatten(0, 1) for model in self._models], -1)
        return self._target(features) if self.returns_log_probs else features

    @torch.no_grad()
    def log_probabilities(self, rows: Tensor, temperature: float) -> Tensor:
        """Return log-probabilities of rows, ``(rows, vocab)``; the whole is softened, not its parts."""
        log_p = rows if self.returns_log_probs else self._target(rows)
        return log_p if temperature == 1 else log_probabilities(log_p, temperature)

    def outcomes(self, log_q: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG002
        """Return ``log_q``: every token is an outcome."""
        return log_q

    @property
    def _models(self) -> tuple[LanguageModel, LanguageModel, LanguageModel]:
        return self.student_base, self.teacher_base, self.tuned

    def _target(self, features: Tensor) -> Tensor:
        parts = features.split([model.head.shape[1] for model in self._models], -1)
        s_0, t_0, t_1 = (
            log_probabilities(logits_of(model, part)) for part, model in zip(parts, self._models, strict=True)
        )
        return shifted(s_0, t_0, t_1, self.rules.strength, self.rules.tail)
