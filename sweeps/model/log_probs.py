"""Log-probabilities of logits, and the cross-entropy of labels under them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-softmax of ``logits / temperature``, in float32 at least."""
    logits = full(logits)
    return F.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)


def cross_entropy(log_q: Tensor, labels: Tensor) -> Tensor:
    """-log q(label); labels have the shape of ``log_q`` without the vocabulary."""
    return -log_q.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def full(x: Tensor) -> Tensor:
    """``x`` in float32, or in what it has if that is more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
