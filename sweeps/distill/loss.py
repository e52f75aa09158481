"""The loss of a run on tokens, in nats/token: cross-entropy, a divergence from its target, or both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scaling.errors import InputError
from sweeps.distill.divergences import label_loss
from sweeps.model.chunked_loss import PerToken, logits_fit, mean_loss, per_token_loss
from sweeps.model.compiling.compiled import compile_function
from sweeps.model.language_model import LanguageModel
from sweeps.model.log_probs import log_probabilities
from sweeps.spec.method.interfaces import Divergence, SequenceSource
from sweeps.spec.method.method import Method
from sweeps.spec.method.method_parts import parts_of
from sweeps.spec.method.run_views import LogProbsView, TargetReader
from sweeps.spec.spec import Training


@dataclass(frozen=True, slots=True)
class LossRules:
    """All that the loss of a run on tokens depends on besides models and batches."""

    training: Training
    first: int = 0
    """The first position whose next token counts: that of a prompt's last token."""
    method: Method | None = None
    divergence: Divergence | None = None
    source: SequenceSource | None = None

    @classmethod
    def of(cls, training: Training, method: Method | None, context: int) -> LossRules:
        """Return the rules of a run with ``method``, or without one."""
        if method is None:
            return cls(training)
        parts = parts_of(method)
        first = max(0, parts.source.prompt_tokens(context) - 1)
        return cls(training, first, method, parts.divergence, parts.source)


def batch_loss(
    model: LanguageModel, blocks: Tensor, training: Training, method: Method | None = None, *given: Any
) -> Tensor:
    """Return the training loss on ``blocks``, see :func:`token_loss`, which takes what else is ``given``."""
    return token_loss(model, blocks, LossRules.of(training, method, blocks.shape[1] - 1), *given)


def token_loss(
    model: LanguageModel,
    blocks: Tensor,
    rules: LossRules,
    target: TargetReader | None = None,
    rows: Tensor | None = None,
    schedule: Tensor | None = None,
    token_inputs: tuple[Tensor, ...] = (),
    weights: Tensor | None = None,
    features: Tensor | None = None,
) -> Tensor:
    """Return the training loss on ``blocks``: a mean over the tokens that count, a scalar.

    Args:
        model: The student.
        blocks: Tokens, ``(batch, context + 1)``.
        rules: Of the run.
        target: What the method reads.
        rows: What the target read of these inputs, ``(batch * context, ...)``.
        schedule: The number that the divergence reads at this step, if it reads one.
        token_inputs: What else the source's loss needs, ``(batch, counted)`` each.
        weights: Of positions, ``(batch, context)``, with mean one over the counted ones of a batch.
        features: The student's, ``(batch, context, width)``, where they are known already.
    """
    first, method = rules.first, rules.method
    hidden = model.model(blocks[:, :-1]) if features is None else features
    hidden, labels = (hidden[:, first:] if first else hidden).flatten(0, 1), blocks[:, first + 1 :].flatten()
    given = [each.flatten() for each in token_inputs]
    if method is None or not method.reads_teacher:
        per_token = _supervised(rules.training)
    else:
        assert target is not None, "a method needs a target"
        assert rows is not None, "a target needs its rows"
        assert rules.source is not None
        given.insert(0, rows.unflatten(0, (len(blocks), -1))[:, first:].flatten(0, 1) if first else rows)
        view = _log_probs_view(model, target, hidden, labels, given[0], len(blocks))
        given += rules.source.more_token_inputs(view)
        per_token = _distilled(rules, target, schedule)
    if weights is not None:
        per_token, given = _weighted(per_token), [weights[:, first:].flatten(), *given]
    # blocks of logits are taken one by one, so there the loss of a block is what can be compiled
    on_data = rules.source is None or rules.source.is_data
    if rules.training.compile and on_data and not logits_fit(len(hidden), len(model.head)):
        per_token = compile_function(per_token)
    loss = mean_loss(per_token, hidden, model.head, labels, *given)
    return loss if method is None or method.token_loss_weight == 1 else method.token_loss_weight * loss


def _supervised(training: Training) -> PerToken:
    def per_token(logits: Tensor, labels: Tensor, *_: Tensor) -> Tensor:
        return label_loss(logits, labels, z_loss=training.z_loss)

    return per_token


def _distilled(rules: LossRules, target: TargetReader, schedule: Tensor | None) -> PerToken:
    training, method, divergence, source = rules.training, rules.method, rules.divergence, rules.source
    assert method is not None
    assert divergence is not None
    assert source is not None
    tau, hard, moving = method.temperature, method.cross_entropy, () if schedule is None else (schedule,)
    fused = divergence.fused(training, tau) if source.is_data else None

    def per_token(logits: Tensor, labels: Tensor, rows: Tensor, *token_inputs: Tensor) -> Tensor:
        log_p = target.log_probabilities(rows, tau)
        if fused is not None and target.outcomes(logits, rows) is logits:
            return fused(logits, log_p, labels, hard, training.z_loss)
        log_q = target.outcomes(log_probabilities(logits, tau), rows)
        soft = source.token_loss(method, divergence, log_p, log_q, labels, moving, *token_inputs)
        if soft.shape != labels.shape:
            raise InputError(
                f"divergence: {type(divergence).__name__}.per_token returned {tuple(soft.shape)}; "
                f"it must be one loss a row, {tuple(labels.shape)}"
            )
        if not (hard or training.z_loss):
            return soft
        return (1 - hard) * soft + label_loss(logits, labels, hard, training.z_loss)

    return per_token


def _weighted(per_token: PerToken) -> PerToken:
    def weighted(logits: Tensor, labels: Tensor, weights: Tensor, *given: Tensor) -> Tensor:
        return weights * per_token(logits, labels, *given)

    return weighted


def _log_probs_view(
    model: LanguageModel, target: TargetReader, hidden: Tensor, labels: Tensor, rows: Tensor, blocks: int
) -> LogProbsView:
    def ahead(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        log_p, log_q = target.log_probabilities(rows, 1.0), log_probabilities(logits)
        return (log_p.gather(-1, labels[:, None]) - log_q.gather(-1, labels[:, None])).squeeze(-1)

    return LogProbsView(
        blocks=blocks, difference=lambda: per_token_loss(ahead, hidden, model.head, labels, rows)
    )
