"""TAID (Shing et al. 2025, arXiv 2501.16937): a teacher that begins near the student and moves away from it.

The student follows p_t, proportional to q^(1-t) p^t with its own distribution q held fixed, and t rises from
near 0 to 1: faster while the loss falls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sweeps.distill.divergences import expectation
from sweeps.model.log_probs import log_probabilities

if TYPE_CHECKING:
    from sweeps.spec.method.method_options import Taid


def between(log_p: Tensor, log_q: Tensor, t: Tensor | float) -> Tensor:
    """Return log p_t: the teacher at t = 1, at t = 0 the student, of which no gradient is taken.

    A token that the teacher excludes (log p = -inf) is excluded at every t, at 0 as in the limit.
    """
    t = torch.as_tensor(t, dtype=torch.float64).clamp(min=torch.finfo(torch.float32).tiny)
    return log_probabilities((1 - t) * log_q.detach() + t * log_p)


def interpolated_cross_entropy(log_p: Tensor, log_q: Tensor, t: Tensor | float) -> Tensor:
    """Return the cross-entropy of p_t and q, one value a token; its gradient by the logits is q - p_t.

    That is KL(p_t || q) plus the entropy of p_t, which moves with t and has no gradient. The authors' code
    watches the cross-entropy, so that is what sets the pace here.
    """
    return -expectation(between(log_p, log_q, t), log_q)


@dataclass
class TaidSchedule:
    """Distance t that the target has moved to the teacher: a part of checkpoints.

    After each optimizer step, with the batch's training loss J over all processes::

        m <- beta m + (1 - beta) (J_before - J) / J_before
        t <- min(end, max(start + (end - start) n / N, t + pace / N sigmoid(m) (1 - t)))

    The rate is stated over the whole run, where the authors' 5e-4 a step is 8 over their 16,000 steps: a
    fixed rate a step leaves runs of fewer than 2,700 steps with the linear floor alone, and a law would mix
    two methods.
    """

    rules: Taid
    steps: int
    """N, of the whole run."""
    state: Tensor = field(init=False)
    """t, the loss before and m: float64, ``(3,)``."""

    def __post_init__(self) -> None:
        self.state = torch.tensor([self.rules.start, 0.0, 0.0], dtype=torch.float64)

    @property
    def value(self) -> Tensor:
        """Return t of the next optimizer step."""
        return self.state[0]

    def update(self, step: int, loss: Tensor) -> None:
        """Move on after optimizer step ``step``, counted from 0; the first has no loss before it."""
        rules, loss = self.rules, loss.double()
        t, before, momentum = self.state.to(loss.device)
        if step > 0:
            momentum = rules.momentum * momentum + (1 - rules.momentum) * (before - loss) / (before + 1e-15)
            linear = rules.start + (rules.end - rules.start) * step / self.steps
            t = (t + rules.pace / self.steps * momentum.sigmoid() * (1 - t)).clamp(linear, rules.end)
        self.state = torch.stack([t, loss, momentum])
