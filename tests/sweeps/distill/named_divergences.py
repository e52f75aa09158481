"""Divergences that ship, by name, for tests."""

from __future__ import annotations

from torch import Tensor

from sweeps.spec.method.registry import divergences

DIVERGENCES = divergences()


def distillation(
    name: str, log_p: Tensor, log_q: Tensor, labels: Tensor, tau: float = 1.0, **own: float
) -> Tensor:
    """Return tau^power D(p, q) of the divergence ``name`` with its own options, ``(rows,)``."""
    return DIVERGENCES[name](**own).scaled(log_p, log_q, labels, tau)
