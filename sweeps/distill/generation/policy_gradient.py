"""Policy gradient of a divergence between whole sequences.

The reverse KL of sequences, KL(Q || P), has the gradient (Gu et al. 2024, section 2.2)::

    E_{y~Q} sum_t [ grad KL(q_t || p_t)  -  R_{t+1} grad log q(y_t) ],    R_t = sum_{t'>=t} log p/q (y_t')

Its first half is the divergence at every token, what every method has; the second is here. A token's own
reward is in the first half: to count it in the second too, as the authors' code does, doubles it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sweeps.distill.generation.sampling import GeneratedText
from sweeps.spec.method.method_options import Credit


def advantages(written: GeneratedText, rules: Credit) -> Tensor:
    """Return the advantage of each token of text by student and teacher: ``(batch, written)``."""
    if rules.rewards == "expected":
        rewards = -written.reverse_kl
    else:
        log_q, log_p = written.by_writer
        rewards = log_p - log_q
    return returns(rewards, rules.discount, rules.normalise, rules.include_current)


def returns(
    rewards: Tensor, discount: float = 1.0, normalise: bool = True, include_current: bool = False
) -> Tensor:
    """Return the discounted sum of the ``rewards`` ``(batch, time)`` after each: discount^(k-1) for k later.

    Normalised it is their mean, with those weights; after the last comes nothing, and that is zero. (Equation
    6 of the paper divides by one too few.)
    """
    time = rewards.shape[-1]
    place = torch.arange(time, device=rewards.device)
    later = place[:, None] - place - (0 if include_current else 1)
    weights = torch.where(later >= 0, discount ** later.clamp(min=0).to(rewards.dtype), 0.0)
    total = rewards @ weights
    return total / weights.sum(0).clamp(min=1e-30) if normalise else total


def clipped(log_q: Tensor, drawn: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Return the clipped surrogate loss of tokens ``drawn`` with these log-probabilities, ``(rows,)``.

    Its value is no divergence. Beyond 1 +- ``clip`` a ratio that credit would drive further has no gradient
    (Schulman et al. 2017), be it that the student has moved or that a teacher had a share in drawing.
    """
    ratio = (log_q - drawn).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
