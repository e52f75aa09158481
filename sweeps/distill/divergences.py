"""Losses of a model against the data, a teacher, or both, in nats: one value a token.

All take log-probabilities of the student, ``log_q``, and of the teacher, ``log_p``, with the vocabulary last.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sweeps.model.log_probs import at_least_float32
from sweeps.spec.method.method import Method


def label_loss(logits: Tensor, labels: Tensor, weight: float = 1.0, z_loss: float = 0.0) -> Tensor:
    """``weight`` times the cross-entropy with the labels, and ``z_loss`` times (log sum exp logits)^2.

    The latter keeps the normaliser near one (Busbridge et al. 2025, Eq. 5).
    """
    found: Tensor = _LabelLoss.apply(logits, labels, weight, z_loss)
    return found


class _LabelLoss(torch.autograd.Function):
    """The gradient in one pass: a multiple of exponentials that are already there, and one entry a row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weight: float, z_loss: float) -> Tensor:
        labels = labels.unsqueeze(-1)
        most = at_least_float32(logits.amax(-1, keepdim=True))
        powers = (at_least_float32(logits) - most).exp()
        total = powers.sum(-1, keepdim=True)
        normaliser = most + total.log()
        log_q = at_least_float32(logits.gather(-1, labels)) - normaliser
        ctx.save_for_backward(powers.to(logits.dtype), total, labels, normaliser, log_q)
        ctx.weight, ctx.z_loss = weight, z_loss
        return (z_loss * normaliser.square() - weight * log_q).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        powers, total, labels, normaliser, log_q = ctx.saved_tensors
        gradient = gradients[0].unsqueeze(-1)
        share = gradient * (ctx.weight + 2 * ctx.z_loss * normaliser)
        found = (powers * (share / total)).to(powers.dtype)
        own = (log_q.exp() * share - ctx.weight * gradient).to(powers.dtype)
        return found.scatter(-1, labels, own), None, None, None


def guided_loss(
    logits: Tensor, log_p: Tensor, labels: Tensor, weight: float = 0.0, z_loss: float = 0.0
) -> Tensor:
    """``1 - weight`` times the forward KL from ``log_p``, and :func:`label_loss`, in two passes and one back.

    What autograd makes of the parts goes over the vocabulary five times, each with exponentials of its own.
    """
    found: Tensor = _GuidedLoss.apply(logits, log_p, labels, weight, z_loss)
    return found


class _GuidedLoss(torch.autograd.Function):
    """The gradient by the logits is q - p, and more of q for the normaliser, of the label for its share."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, log_p: Tensor, labels: Tensor, weight: float, z_loss: float
    ) -> Tensor:
        labels, x = labels.unsqueeze(-1), at_least_float32(logits)
        normaliser = x.logsumexp(-1, keepdim=True)
        apart = expectation(log_p, log_p - x).unsqueeze(-1) + normaliser
        log_q = at_least_float32(logits.gather(-1, labels)) - normaliser
        ctx.save_for_backward(logits, log_p, labels, normaliser)
        ctx.weight, ctx.z_loss = weight, z_loss
        return ((1 - weight) * apart - weight * log_q + z_loss * normaliser.square()).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logits, log_p, labels, normaliser = ctx.saved_tensors
        gradient = gradients[0].unsqueeze(-1)
        share = gradient * (1 + 2 * ctx.z_loss * normaliser)
        found = (at_least_float32(logits) - normaliser).exp() * share - log_p.exp() * (
            (1 - ctx.weight) * gradient
        )
        if ctx.weight:
            found = found.scatter_add(-1, labels, -ctx.weight * gradient)
        return found.to(logits.dtype), None, None, None, None


def expectation(log_p: Tensor, values: Tensor) -> Tensor:
    """Sum of p times ``values`` over the outcomes; those that p excludes (log p = -inf) count for nothing."""
    return (log_p.exp() * values.masked_fill(log_p.isneginf(), 0.0)).sum(-1)


def forward_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q), with 0 log 0 = 0: the student covers all that the teacher does."""
    return expectation(log_p, log_p - log_q)


def reverse_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(q || p): the student stays where the teacher is; infinite where p excludes what q does not."""
    return forward_kl(log_q, log_p)


def jensen_shannon(log_p: Tensor, log_q: Tensor, beta: float = 0.5) -> Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q; at most ln 2.

    Half and half it is the symmetric one. As in GKD (Agarwal et al. 2024, Eq. 1), ``beta`` is the teacher's
    share. The value vanishes at both ends, as beta KL(p || q) and (1 - beta) KL(q || p): ``beta`` near an end
    also weakens the loss. TRL replaces the ends themselves, 0 and 1, by KL(p || q) and KL(q || p).
    """
    log_m = mixture(log_p, log_q, beta)
    return beta * forward_kl(log_p, log_m) + (1 - beta) * forward_kl(log_q, log_m)


def total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Half the sum of |p - q|; at most 1."""
    return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


def skew_kl(log_p: Tensor, log_q: Tensor, skew: float = 0.1) -> Tensor:
    """KL(p || skew p + (1 - skew) q), at most -ln skew (DistiLLM, Ko et al. 2024)."""
    return forward_kl(log_p, mixture(log_p, log_q, skew))


def reverse_skew_kl(log_p: Tensor, log_q: Tensor, skew: float = 0.1) -> Tensor:
    """KL(q || skew q + (1 - skew) p), at most -ln skew (the same source)."""
    return skew_kl(log_q, log_p, skew)


def decoupled_kl(
    log_p: Tensor, log_q: Tensor, labels: Tensor, gold: float = 1.0, others: float = 1.0
) -> Tensor:
    """gold KL of "the label or not" + others KL of the other tokens beside each other (Zhao et al. 2022).

    With g the label, KL(p || q) is the first and 1 - p_g times the second: the certainty of the teacher no
    longer weighs how it tells the other tokens apart.
    """
    label = labels.unsqueeze(-1)
    (p, p_rest), (q, q_rest) = with_rest(log_p, label), with_rest(log_q, label)
    one_or_not = forward_kl(torch.cat([p, p_rest], -1), torch.cat([q, q_rest], -1))
    beside = forward_kl(
        log_p.scatter(-1, label, -torch.inf) - p_rest.clamp(min=-1e30), log_q.scatter(-1, label, 0.0) - q_rest
    )
    return gold * one_or_not + others * beside


def with_rest(log_p: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of ``tokens`` ``(..., k)``, and of all others together ``(..., 1)``."""
    others = log_p.scatter(-1, tokens, -torch.inf)
    return log_p.gather(-1, tokens), others.logsumexp(-1, keepdim=True)


def mixture(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """log(share p + (1 - share) q)."""
    return torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share))


def halves_loss(
    method: Method,
    log_p: Tensor,
    log_q: Tensor,
    teachers: Tensor,
    students: Tensor,
    share: Tensor | None = None,
) -> Tensor:
    """Return the loss of each token, on text of the teacher or of the student (Wen et al. 2023).

    Args:
        method: With jensen-shannon or total-variation.
        log_p: Log-probabilities of the teacher, ``(rows, vocab)``.
        log_q: Those of the student.
        teachers: Weights of tokens of the teacher's text, ``(rows,)``, zero elsewhere.
        students: Those of the student's.
        share: The teacher's share in the mixture m at each token, ``(rows,)``; ``beta`` if not given.
    """
    tau = method.temperature
    if method.divergence == "total-variation":
        return (teachers + students) / 2 * total_variation(log_p, log_q) * tau
    w = torch.full_like(teachers, method.beta) if share is None else share
    students_share = (-w).log1p().clamp(min=math.log(torch.finfo(w.dtype).tiny))
    log_m = torch.logaddexp(log_p + w.log()[:, None], log_q + students_share[:, None])
    of_teacher = teachers * method.beta * forward_kl(log_p, log_m)
    return tau**2 * (of_teacher + students * (1 - method.beta) * forward_kl(log_q, log_m))


@torch.no_grad()
def teacher_share(beta: float, difference: Tensor, blocks: int) -> Tensor:
    """Return the teacher's share in the next token of the mixture of whole sequences: ``(rows,)``.

    The conditionals of beta P + (1 - beta) Q mix those of P and Q by how likely each finds the text so far:
    with these the divergence is that of sequences, where fixed shares bound it from above.

    Args:
        beta: The teacher's share in the mixture of sequences.
        difference: log p - log q of each token, ``(rows,)``, block after block.
        blocks: How many blocks there are.
    """
    by_block = difference.unflatten(0, (blocks, -1))
    before = F.pad(by_block[:, :-1].cumsum(1), (1, 0))
    return (before + math.log(beta) - math.log1p(-beta)).sigmoid().flatten()
