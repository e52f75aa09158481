"""Scaling laws: cross-entropy as a plain function of parameters, tokens and a teacher.

A law is a frozen dataclass of coefficients. A coefficient may be a float or an array: arrays broadcast
against the inputs, so a law whose coefficients have shape ``(draws, 1)`` evaluates a whole posterior at
once. Everything is computed in log space and stays finite for 1e3..1e15 parameters and 1e3..1e18 tokens.

Symbols follow Busbridge et al., "Distillation Scaling Laws", ICML 2025 (arXiv 2502.08606):

====== ===================================================== =============
N      non-embedding parameters (``_S`` student, ``_T`` teacher)
D      tokens trained on
L      cross-entropy against held-out data                     nats/token
L_T    the teacher's cross-entropy                             nats/token
Ls     loss of the student trained alone, L(N_S, D_S)          nats/token
====== ===================================================== =============

Derivatives are exact and always taken with respect to natural logarithms, of coefficients and of inputs
alike, because that is the scale on which all of them are of order one.
"""

from scaling.laws.allocation import (
    Allocation,
    ScalingExponents,
    as_power_law,
    compute_optimal,
    optimal_params,
    scaling_exponents,
    tokens_for_loss,
)
from scaling.laws.derivatives import Array, Derivatives, Partials
from scaling.laws.distillation import DistillationLaw, coefficients, teacher_excess
from scaling.laws.effective_tokens import EffectiveTokensLaw
from scaling.laws.farseer import FarseerLaw
from scaling.laws.over_training import OverTrainingLaw
from scaling.laws.published import PublishedLaw, PublishedLaw9
from scaling.laws.supervised import AnySupervisedLaw, SupervisedLaw

__all__ = [
    "Allocation",
    "AnySupervisedLaw",
    "Array",
    "Derivatives",
    "DistillationLaw",
    "EffectiveTokensLaw",
    "FarseerLaw",
    "OverTrainingLaw",
    "Partials",
    "PublishedLaw",
    "PublishedLaw9",
    "ScalingExponents",
    "SupervisedLaw",
    "as_power_law",
    "coefficients",
    "compute_optimal",
    "optimal_params",
    "scaling_exponents",
    "teacher_excess",
    "tokens_for_loss",
]
