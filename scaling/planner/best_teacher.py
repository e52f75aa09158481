"""The best teacher that a price buys.

A teacher enters the student's loss only through its own, so under every scenario the best teacher for a
given price is the one of least loss. What is left to choose is the price, and one dimension remains.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.costs.flops import Architecture
from scaling.costs.scenarios import Shares, rates
from scaling.grid_search import minimize_elementwise
from scaling.laws import AnySupervisedLaw, SupervisedLaw, as_power_law
from scaling.repeated_data import REPETITION_CONSTANT, elasticity, repeated_tokens_value

Array = NDArray[np.float64]
NEWTON_STEPS = 5
"""Newton steps; the error they leave in ln N enters the loss squared."""
CONVERGED = 1e-3
"""A step in ln N after which the next, by quadratic convergence, would not be seen."""


class TeacherBox(NamedTuple):
    """The teachers that may be chosen: floats or arrays of shape (P, 1)."""

    params: tuple[float | Array, float | Array]
    tokens: tuple[float | Array, float | Array]
    unique_tokens: float = np.inf
    """Distinct tokens there are for a teacher; more are repetitions."""
    repetition: float = REPETITION_CONSTANT
    """R_D* of :mod:`scaling.repeated_data`."""


class Teachers(NamedTuple):
    """Teachers; arrays of one shape."""

    params: Array
    tokens: Array
    loss: Array


def best_teacher(
    price: Array,
    shares: Shares,
    student_tokens: float | Array,
    box: TeacherBox,
    supervised: AnySupervisedLaw,
    architecture: Architecture,
) -> Teachers:
    """Return the teacher of least loss in ``box`` whose charged cost is at most ``price``, FLOPs.

    Args:
        price: FLOPs to spend on the teacher, shape (P, K).
        shares: Shares of its costs that are charged.
        student_tokens: Tokens at which its distribution is needed.
        box: The teachers that may be chosen.
        supervised: The law of the teacher's loss.
        architecture: The rule that FLOPs are counted with.

    Returns:
        Teachers of the shape of ``price``; the loss is inf where nothing in the box is cheap enough.
    """
    passes = rates(shares, 0.0, 1.0)  # in forward passes of the teacher, whose size is not known yet
    logit_tokens, per_token = np.asarray(passes.logits * student_tokens), passes.teacher
    fewest, most = box.tokens
    smallest, largest = box.params
    params_left = [
        architecture.params_for_flops(price / (logit_tokens + per_token * D)) for D in (fewest, most)
    ]
    upper, lower = (np.log(np.clip(N, smallest, largest)) for N in params_left)
    charged = per_token > 0
    ln_N = lower
    if np.any(charged):
        power_law = as_power_law(supervised)
        if power_law is None:

            def loss(ln_N: Array) -> Array:
                at = price, logit_tokens, per_token, box, supervised, architecture
                return _teacher(np.clip(np.exp(ln_N), smallest, largest), *at).loss

            found = minimize_elementwise(loss, lower, upper)
        else:
            each = np.where(charged, per_token, 1.0)
            found = _Balance(price, logit_tokens, each, box, power_law, architecture).root(lower, upper)
        ln_N = np.where(charged, found, lower)
    return _teacher(
        np.clip(np.exp(ln_N), smallest, largest),
        price,
        logit_tokens,
        per_token,
        box,
        supervised,
        architecture,
    )


class _Balance(NamedTuple):
    """Condition of the best teacher at a price under a power law: its terms fall and rise at one rate."""

    price: Array
    logit_tokens: Array
    per_token: Array
    box: TeacherBox
    supervised: SupervisedLaw
    architecture: Architecture

    def root(self, lower: Array, upper: Array) -> Array:
        """Return ln N of least loss between the bounds.

        The imbalance has a pole where logits alone cost the whole price, so Newton steps are taken in the log
        odds of training against logits, where it is nearly straight; without logits that is ln F itself.
        """
        ln_N = np.maximum(upper - 1.0, lower)
        for _ in range(NEWTON_STEPS):
            value, slope, leverage, slope_F = self.imbalance(ln_N)
            step = np.expm1(value * slope_F * leverage / slope)
            before, ln_N = ln_N, np.clip(ln_N - np.log1p(step / leverage) / slope_F, lower, upper)
            if np.max(np.abs(ln_N - before)) < CONVERGED:
                break
        return ln_N

    def imbalance(self, ln_N: Array) -> tuple[Array, Array, Array, Array]:
        """Return ln(rate at which the data term rises / rate at which the capacity term falls) and its slope.

        Also price/(price - logits) and d ln F/d ln N.
        """
        s, unique, constant = self.supervised, self.box.unique_tokens, self.box.repetition
        F, slope_F = self.architecture.forward_flops_and_slope(ln_N)
        tokens_and_logits = self.price / F
        trained = np.maximum(tokens_and_logits - self.logit_tokens, 1e-12 * tokens_and_logits)
        leverage = tokens_and_logits / trained
        D = trained / self.per_token
        response: Array | float = 1.0
        saturation: Array | float = 0.0
        if np.isfinite(unique):
            response = elasticity(D, unique, constant)
            saturation = np.where(np.greater(D, unique), D / (unique * constant) + response - 1, 0.0)
            D = repeated_tokens_value(D, unique, constant)
        data = np.log(s.beta * s.B * np.maximum(response, 1e-300)) - s.beta * np.log(D)
        capacity = np.log(s.alpha * s.A) - s.alpha * ln_N
        value = data + np.log(slope_F * leverage) - capacity
        slope = s.alpha + slope_F * (leverage * (s.beta * response + saturation) + leverage - 1)
        return value, slope, leverage, slope_F


def _teacher(
    params: Array,
    price: Array,
    logit_tokens: Array,
    per_token: Array,
    box: TeacherBox,
    supervised: AnySupervisedLaw,
    architecture: Architecture,
) -> Teachers:
    """Return the teacher of this size with all the tokens that the price leaves."""
    fewest, most = box.tokens
    left = price / architecture.forward_flops(params) - logit_tokens
    charged = per_token > 0
    tokens = np.where(charged, np.minimum(left / np.where(charged, per_token, 1.0), most), most)
    slack = -1e-9 * (left + logit_tokens)
    feasible = np.where(charged, tokens >= fewest * (1 - 1e-6), left >= slack)
    tokens = np.where(feasible, tokens, fewest)
    loss = supervised.loss(params, repeated_tokens_value(tokens, box.unique_tokens, box.repetition))
    return Teachers(params, tokens, np.where(feasible, loss, np.inf))
