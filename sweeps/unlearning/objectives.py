"""Objectives of baselines: gradient difference, and negative preference optimization (NPO).

NPO (Zhang et al. 2024, arXiv 2404.05868) is -(2/beta) log sigmoid(beta (l_S - l_ref)) of negative
log-likelihoods l of a sequence. Its gradient is that of gradient ascent, times a weight per sequence that
falls from 1 to 0 as the student forgets.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def npo_loss(student: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Return the NPO loss of each sequence, ``(sequences,)``.

    Args:
        student: Negative log-likelihood of each sequence, nats, ``(sequences,)``.
        reference: That of the model it began as.
        beta: Inverse temperature; towards 0 the loss is gradient ascent.
    """
    return -2 / beta * F.logsigmoid(beta * (student - reference))


def npo_weights(difference: Tensor, beta: float) -> Tensor:
    """Return the weight of gradient ascent on each sequence that NPO's gradient has, ``(sequences,)``.

    Args:
        difference: l_S - l_ref, nats, ``(sequences,)``.
        beta: As in :func:`npo_loss`.
    """
    return 2 * (-beta * difference).sigmoid()
