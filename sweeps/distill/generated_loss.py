"""The loss on text that models wrote: after prompts, and what such methods add token by token."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sweeps.distill.divergences import distillation, forward_kl, label_loss, total_variation
from sweeps.distill.policy_gradient import clipped
from sweeps.distill.targets import Target
from sweeps.model.chunked_loss import PerToken, mean_loss, per_token_loss
from sweeps.model.language_model import LanguageModel
from sweeps.model.log_probs import log_probabilities
from sweeps.spec.method import Method
from sweeps.spec.spec import Training


def written_loss(
    model: LanguageModel,
    blocks: Tensor,
    training: Training,
    method: Method,
    target: Target | None,
    rows: Tensor | None,
    *of_tokens: Tensor,
) -> Tensor:
    """The training loss on ``blocks`` ``(batch, context + 1)``: a mean over the tokens after the prompts.

    ``rows`` are the target's, of all tokens. ``of_tokens`` ``(batch, written)`` are, on text of both, the
    weights of the teacher's and of the student's; with credit, advantages and the log-probabilities that
    tokens were drawn with.
    """
    first = method.source.prompt(blocks.shape[1] - 1) - 1
    features = model.model(blocks[:, :-1])[:, first:].flatten(0, 1)
    labels = blocks[:, first + 1 :].flatten()
    given = [each.flatten() for each in of_tokens]
    if rows is not None and target is not None:
        given.insert(0, rows.unflatten(0, (len(blocks), -1))[:, first:].flatten(0, 1))
        if method.midpoint == "exact":
            given.append(_share_of_teacher(model, method, target, features, labels, given[0], len(blocks)))
    return mean_loss(_per_token(training, method, target), features, model.head, labels, *given)


def _per_token(training: Training, method: Method, target: Target | None) -> PerToken:
    tau, hard = method.temperature, method.cross_entropy

    def soft(logits: Tensor, labels: Tensor, rows: Tensor, *of_token: Tensor) -> Tensor:
        assert target is not None, "a method needs a target"
        log_p, log_q = target.log_probabilities(rows, tau), log_probabilities(logits, tau)
        if method.source.by == "both":
            return _halves(method, log_p, log_q, *of_token)
        loss = distillation(method.divergence, log_p, log_q, labels, tau, **method.parameters)
        if method.credit:
            advantage, drawn = of_token
            loss = loss + clipped(_of(log_q, labels), drawn, advantage, method.credit.clip)
        return loss

    def per_token(logits: Tensor, labels: Tensor, *given: Tensor) -> Tensor:
        if not method.reads_teacher:
            return label_loss(logits, labels, 1.0, training.z_loss)
        loss = soft(logits, labels, *given)
        if not (hard or training.z_loss):
            return loss
        return (1 - hard) * loss + label_loss(logits, labels, hard, training.z_loss)

    return per_token


def _halves(
    method: Method,
    log_p: Tensor,
    log_q: Tensor,
    teachers: Tensor,
    students: Tensor,
    share: Tensor | None = None,
) -> Tensor:
    """f-DISTILL's losses: of the teacher's text the one half, of the student's the other (Wen et al. 2023).

    ``teachers`` and ``students`` ``(rows,)`` weigh tokens by whose text they are in. ``share`` is the
    teacher's in the mixture m, which is ``beta`` if it is not given.
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
def _share_of_teacher(
    model: LanguageModel,
    method: Method,
    target: Target,
    features: Tensor,
    labels: Tensor,
    rows: Tensor,
    batch: int,
) -> Tensor:
    """The teacher's share in the next token of the mixture of whole sequences: ``(rows,)``.

    The conditionals of beta P + (1 - beta) Q mix those of P and Q by how likely each finds the text so far:
    with these the divergence is that of sequences, where fixed shares bound it from above.
    """

    def ahead(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return _of(target.log_probabilities(rows, 1.0), labels) - _of(log_probabilities(logits), labels)

    by = per_token_loss(ahead, features, model.head, labels, rows).unflatten(0, (batch, -1))
    before = F.pad(by[:, :-1].cumsum(1), (1, 0))
    return (before + math.log(method.beta) - math.log1p(-method.beta)).sigmoid().flatten()


def _of(log_p: Tensor, tokens: Tensor) -> Tensor:
    return log_p.gather(-1, tokens[:, None]).squeeze(-1)
