"""What a model is pulled towards: the data, a teacher, or both. Losses are means in nats/token."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p(target); logits ``(batch, time, vocab)``, targets ``(batch, time)``."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def forward_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """tau^2 KL(p_T || p_S) over the teacher's full distribution (Busbridge et al. 2025, Eqs. 4-7).

    The paper's loss is the cross-entropy with the teacher's distribution, which differs by the teacher's
    entropy and so has the same gradient.

    Args:
        student: student logits, ``(batch, time, vocab)``.
        teacher: teacher logits, same shape; no gradient flows to them.
        temperature: tau, softens both distributions.
    """
    log_p = F.log_softmax(teacher.flatten(0, 1) / temperature, dim=-1)
    log_q = F.log_softmax(student.flatten(0, 1) / temperature, dim=-1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


def z_loss(logits: Tensor) -> Tensor:
    """(log sum exp logits)^2, which keeps the normaliser near one (Busbridge et al. 2025, Eq. 5)."""
    return logits.logsumexp(-1).square().mean()


DIVERGENCES = {"forward-kl": forward_kl}
