"""Compute-optimal direct training under a supervised law, where a run costs C = 6 N D FLOPs.

Under a power law the terms of parameters and of tokens fall equally fast at the optimum (Hoffmann et al.
2022, Eq. 4), whatever the outer gamma::

    N*(C) = G (C/6)^a      a = beta / (alpha + beta)      G = (alpha A / (beta B))^(1 / (alpha + beta))
    D*(C) = (C/6)^b / G    b = alpha / (alpha + beta)
    L*(C) = E + K C^-c     c = gamma alpha beta / (alpha + beta)

Under any other law the optimum is searched for, and exponents are slopes at one compute.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from scaling.grid_search import minimize_elementwise
from scaling.laws.derivatives import Array
from scaling.laws.over_training import OverTrainingLaw
from scaling.laws.supervised import AnySupervisedLaw, SupervisedLaw

FLOPS_PER_TOKEN = 6.0
"""FLOPs of training on one token, for each parameter."""
LN_SLOPE_STEP = 0.1
"""Half the difference in ln C over which exponents are taken that depend on compute."""
TOKENS_PER_PARAM = (0.1, 1e5)
"""Range in which optima of laws other than power laws are searched: some fall without end outside of it."""
LN_PARAMS = (7.0, 35.0)
"""Range of ln N in which the size is searched that given tokens call for."""
LN_MOST_TOKENS = 92.0
"""ln of the tokens that count as unlimited."""
BISECTIONS = 60


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


def as_power_law(law: AnySupervisedLaw) -> SupervisedLaw | None:
    """Return a law in the coefficients of a power law; None if it is no power law."""
    if isinstance(law, OverTrainingLaw):
        return law.power_law()
    return law if isinstance(law, SupervisedLaw) else None


def scaling_exponents(law: AnySupervisedLaw, compute: float = 1e20) -> ScalingExponents:
    """Return the exponents of compute-optimal parameters, tokens and loss.

    Those of a power law hold at every compute, those of other laws at ``compute`` FLOPs.
    """
    power = as_power_law(law)
    if power is not None:
        total = power.alpha + power.beta
        return ScalingExponents(
            power.beta / total, power.alpha / total, power.gamma * power.alpha * power.beta / total
        )
    low, high = (compute_optimal(law, compute * np.exp(side * LN_SLOPE_STEP)) for side in (-1.0, 1.0))
    width = 2 * LN_SLOPE_STEP
    fall = np.log(low.loss - law.E) - np.log(high.loss - law.E)
    params = np.log(high.params / low.params) / width
    return ScalingExponents(params, 1 - params, fall / width)


def compute_optimal(law: AnySupervisedLaw, compute: ArrayLike) -> Allocation:
    """Return the compute-optimal run.

    Args:
        law: The law; coefficients of shape (draws, 1) give the result for every draw.
        compute: Training FLOPs, 6 N D.
    """
    ln_ND = np.log(np.asarray(compute, dtype=np.float64) / FLOPS_PER_TOKEN)
    power = as_power_law(law)
    if power is None:
        return _searched(law, ln_ND)
    exponent = scaling_exponents(power)
    ln_G = np.log(power.alpha * power.A / (power.beta * power.B)) / (power.alpha + power.beta)
    params, tokens = np.exp(ln_G + exponent.params * ln_ND), np.exp(exponent.tokens * ln_ND - ln_G)
    return Allocation(np.asarray(params), np.asarray(tokens), power.loss(params, tokens))


def _searched(law: AnySupervisedLaw, ln_ND: Array) -> Allocation:
    ln_ND = ln_ND + np.zeros(law.loss(1e9, np.exp(ln_ND - np.log(1e9))).shape)
    high, low = (0.5 * (ln_ND - np.log(ratio)) for ratio in TOKENS_PER_PARAM)
    ln_N = minimize_elementwise(lambda size: law.loss(np.exp(size), np.exp(ln_ND - size)), low, high)
    params, tokens = np.exp(ln_N), np.exp(ln_ND - ln_N)
    return Allocation(params, tokens, law.loss(params, tokens))


def optimal_params(law: AnySupervisedLaw, tokens: ArrayLike) -> Array:
    """Return the parameters for which ``tokens`` are compute-optimal, at C = 6 N D."""
    power = as_power_law(law)
    if power is not None:
        ratio = np.log(power.alpha * power.A / (power.beta * power.B)) / (power.alpha + power.beta)
        exponents = scaling_exponents(power)
        return np.asarray(np.exp(ratio + exponents.params * (np.log(tokens) + ratio) / exponents.tokens))
    low, high = (np.full(np.shape(tokens), end) for end in LN_PARAMS)
    for _ in range(BISECTIONS):  # below the optimum more parameters help more than more tokens
        middle = 0.5 * (low + high)
        slopes = law.derivatives(np.exp(middle), tokens).inputs
        small = slopes["N"] < slopes["D"]
        low, high = np.where(small, middle, low), np.where(small, high, middle)
    return np.asarray(np.exp(0.5 * (low + high)))


def tokens_for_loss(law: AnySupervisedLaw, params: ArrayLike, loss: ArrayLike) -> Array:
    """Return the tokens on which a model of ``params`` reaches ``loss``, nats/token; inf where none do."""
    power, loss = as_power_law(law), np.asarray(loss, dtype=np.float64)
    if power is not None:
        capacity = np.exp(np.log(power.A) - power.alpha * np.log(params))
        left = np.maximum(loss - power.E, 0.0) ** (1 / power.gamma) - capacity
        with np.errstate(divide="ignore"):
            return np.asarray((np.maximum(left, 0.0) / power.B) ** (-1 / power.beta))
    low = np.zeros(np.broadcast_shapes(np.shape(params), loss.shape, np.shape(law.loss(params, 1.0))))
    high = np.full(low.shape, LN_MOST_TOKENS)
    reached = law.loss(params, np.exp(high)) <= loss
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        enough = law.loss(params, np.exp(middle)) <= loss
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(reached, np.exp(high), np.inf)
