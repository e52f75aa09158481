"""Log-probabilities of logits, and the cross-entropy of labels under them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the log-softmax of ``logits / temperature``, in float32 at least."""
    logits = at_least_float32(logits)
    return F.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)


def cross_entropy(log_q: Tensor, labels: Tensor) -> Tensor:
    """Return -log q(label); labels have the shape of ``log_q`` without the vocabulary."""
    return -log_q.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def at_least_float32(x: Tensor) -> Tensor:
    """Convert ``x`` to float32, unless its precision is higher."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
