"""Compute-optimal direct training under a supervised law, where a run costs C = 6 N D FLOPs.

At the optimum the terms of parameters and of tokens fall equally fast (Hoffmann et al. 2022, Eq. 4), whatever
the outer gamma::

    N*(C) = G (C/6)^a      a = beta / (alpha + beta)      G = (alpha A / (beta B))^(1 / (alpha + beta))
    D*(C) = (C/6)^b / G    b = alpha / (alpha + beta)
    L*(C) = E + K C^-c     c = gamma alpha beta / (alpha + beta)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.derivatives import Array
from scaling.laws.supervised import SupervisedLaw

FLOPS_PER_TOKEN = 6.0
"""FLOPs of training on one token, for each parameter."""


class ScalingExponents(NamedTuple):
    """Exponents of compute; coefficients of shape (draws, 1) give the same shape."""

    params: float | Array
    """a in N* ~ C^a."""
    tokens: float | Array
    """b in D* ~ C^b; a + b = 1."""
    loss: float | Array
    """c in L* - E ~ C^-c."""


class Allocation(NamedTuple):
    """The run of least loss for each compute."""

    params: Array
    tokens: Array
    loss: Array
    """nats/token"""


def scaling_exponents(law: SupervisedLaw) -> ScalingExponents:
    """Return the exponents of compute-optimal parameters, tokens and loss."""
    total = law.alpha + law.beta
    return ScalingExponents(law.beta / total, law.alpha / total, law.gamma * law.alpha * law.beta / total)


def compute_optimal(law: SupervisedLaw, compute: ArrayLike) -> Allocation:
    """Return the compute-optimal run.

    Args:
        law: The law; coefficients of shape (draws, 1) give the result for every draw.
        compute: Training FLOPs, 6 N D.
    """
    ln_ND = np.log(np.asarray(compute, dtype=np.float64) / FLOPS_PER_TOKEN)
    exponent = scaling_exponents(law)
    ln_G = np.log(law.alpha * law.A / (law.beta * law.B)) / (law.alpha + law.beta)
    params, tokens = np.exp(ln_G + exponent.params * ln_ND), np.exp(exponent.tokens * ln_ND - ln_G)
    return Allocation(np.asarray(params), np.asarray(tokens), law.loss(params, tokens))
