"""What a run minimises, in nats/token: the data's cross-entropy, a divergence from its target, or both."""

from __future__ import annotations

from torch import Tensor

from sweeps.distill.divergences import distillation, guided_loss, label_loss
from sweeps.distill.taid import followed
from sweeps.distill.targets import Target
from sweeps.model.chunked_loss import PerToken, logits_fit, mean_loss
from sweeps.model.compiled import compile_function
from sweeps.model.language_model import LanguageModel
from sweeps.model.log_probs import log_probabilities
from sweeps.spec.method import Method
from sweeps.spec.spec import Training


def batch_loss(
    model: LanguageModel,
    blocks: Tensor,
    training: Training,
    method: Method | None = None,
    target: Target | None = None,
    rows: Tensor | None = None,
    t: Tensor | None = None,
) -> Tensor:
    """The training loss on ``blocks`` of shape ``(batch, context + 1)``, a mean over tokens.

    With a ``method`` the model follows its ``target``, of which ``rows`` are those of these inputs, or under
    TAID what lies ``t`` of the way to it.
    """
    inputs, labels = blocks[:, :-1], blocks[:, 1:].flatten()
    features = model.model(inputs).flatten(0, 1)
    if method is None or not method.reads_teacher:
        return _mean(_supervised(training), training, features, model.head, labels)
    assert target is not None, "a method needs a target"
    assert rows is not None, "a target needs its rows"
    return _mean(_distilled(training, method, target, t), training, features, model.head, labels, rows)


def _mean(per_token: PerToken, training: Training, features: Tensor, weight: Tensor, *rows: Tensor) -> Tensor:
    """Blocks of logits are taken one by one, so there the loss of a block is what can be compiled."""
    if training.compile and not logits_fit(len(features), len(weight)):
        per_token = compile_function(per_token)
    return mean_loss(per_token, features, weight, *rows)


def _supervised(training: Training) -> PerToken:
    def per_token(logits: Tensor, labels: Tensor) -> Tensor:
        return label_loss(logits, labels, z_loss=training.z_loss)

    return per_token


def _distilled(training: Training, method: Method, target: Target, t: Tensor | None) -> PerToken:
    tau, hard = method.temperature, method.cross_entropy
    at_once = training.compile and method.divergence == "forward-kl" and tau == 1 and t is None

    def per_token(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        log_p = target.log_probabilities(rows, tau)
        if at_once and target.outcomes(logits, rows) is logits:
            return guided_loss(logits, log_p, labels, hard, training.z_loss)
        log_q = target.outcomes(log_probabilities(logits, tau), rows)
        if t is None:
            soft = distillation(method.divergence, log_p, log_q, labels, tau, **method.parameters)
        else:
            soft = followed(log_p, log_q, t) * tau**2
        if not (hard or training.z_loss):
            return soft
        return (1 - hard) * soft + label_loss(logits, labels, hard, training.z_loss)

    return per_token
