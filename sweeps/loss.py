"""What a run minimises, in nats/token: the data's cross-entropy, a divergence from its target, or both."""

from __future__ import annotations

from torch import Tensor

from sweeps.chunked import PerToken, mean_loss
from sweeps.objectives import cross_entropy, distillation, log_probabilities, z_loss
from sweeps.spec import Method, Training
from sweeps.targets import LanguageModel, Target


def batch_loss(
    model: LanguageModel,
    blocks: Tensor,
    training: Training,
    method: Method | None = None,
    target: Target | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """The training loss on ``blocks`` of shape ``(batch, context + 1)``, a mean over tokens.

    With a ``method`` the model follows its ``target``, of which ``rows`` are those of these inputs.
    """
    inputs, labels = blocks[:, :-1], blocks[:, 1:].flatten()
    features = model.model(inputs).flatten(0, 1)
    if method is None:
        return mean_loss(_supervised(training), features, model.head, labels)
    assert target is not None, "a method needs a target"
    assert rows is not None, "a target needs its rows"
    return mean_loss(_distilled(training, method, target), features, model.head, labels, rows)


def _supervised(training: Training) -> PerToken:
    def per_token(logits: Tensor, labels: Tensor) -> Tensor:
        log_q = log_probabilities(logits)
        return cross_entropy(log_q, labels) + training.z_loss * z_loss(logits, log_q)

    return per_token


def _distilled(training: Training, method: Method, target: Target) -> PerToken:
    tau, hard = method.temperature, method.cross_entropy

    def per_token(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        log_q = log_probabilities(logits)
        soft_q = log_q if tau == 1 else log_probabilities(logits, tau)
        p, q = target.log_probabilities(rows, tau), target.outcomes(soft_q, rows)
        loss = (1 - hard) * distillation(method.divergence, p, q, tau, **method.parameters)
        if hard:
            loss = loss + hard * cross_entropy(log_q, labels)
        return loss + training.z_loss * z_loss(logits, log_q)

    return per_token
