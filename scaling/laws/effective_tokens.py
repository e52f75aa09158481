"""The effective-tokens family: a teacher multiplies the student's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.derivatives import Array, Derivatives, Partials
from scaling.laws.distillation import teacher_excess
from scaling.laws.supervised import AnySupervisedLaw


class Shape(NamedTuple):
    """The constants that tell the variants of :class:`EffectiveTokensLaw` apart."""

    capacity: float
    """g: the token multiplier's gain is proportional to (L(N_S, inf) - E)^g."""
    sharpening: float
    """r: the sharpness of the soft maximum is q (Ls - E)^-r."""


SHAPES = {"simple": Shape(0.0, 0.0), "capacity": Shape(1.0, 0.0), "sharp": Shape(0.5, 0.3)}
"""Constants by variant. Those of "sharp" were chosen after seeing all 354 runs of Figure 1 of Busbridge et
al. 2025 and a sweep of small models: how well it predicts those runs is optimistic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectiveTokensLaw:
    """A teacher multiplies the student's tokens by kappa; the student is a soft maximum of both.

    With the teacher's excess c = L_T - E, the student's floor f = L(N_S, kappa D_S) - E and the loss
    Ls = L(N_S, D_S) that the student would reach alone::

        kappa = 1 + k c (L(N_S, inf) - E)^g
        p     = q (Ls - E)^-r
        L_S   = E + [ f^p + (c exp(-eps f/c))^p ]^(1/p)

    ==========  ===  ===  ============================================================================
    variant      g    r
    ==========  ===  ===  ============================================================================
    simple       0    0   for sweeps of small models
    capacity     1    0   the closest on students below 2e9 parameters, refuted above
    sharp       1/2  0.3  the maximum sharpens as the student gets better; for public calibrations
    ==========  ===  ===  ============================================================================

    Three coefficients instead of eight, so a small sweep can identify it. It represents students better
    than their teacher. Of students above 2e9 parameters six runs are known, which all variants predict too
    high, "sharp" by 0.01 nats.

    >>> from scaling import EffectiveTokensLaw, SupervisedLaw
    >>> supervised = SupervisedLaw(E=1.8, A=300.0, B=2000.0, alpha=0.35, beta=0.37)
    >>> law = EffectiveTokensLaw(k=1.4, q=6.0, eps=0.02, variant="simple")
    >>> float(law.loss(300e6, 10e9, 2.2, supervised).round(4)), float(supervised.loss(300e6, 10e9).round(4))
    (2.4665, 2.5227)
    """

    k: float | Array
    q: float | Array
    """Sharpness of the soft maximum; of "sharp", where Ls - E is 1 nat."""
    eps: float | Array
    variant: str = "simple"

    inputs: ClassVar[tuple[str, ...]] = ("N_S", "D_S", "L_T")
    variants: ClassVar[tuple[str, ...]] = tuple(SHAPES)

    def __post_init__(self) -> None:
        if self.variant not in self.variants:
            raise ValueError(f"variant must be one of {', '.join(self.variants)}, not {self.variant!r}")

    def effective_tokens(
        self, N_S: ArrayLike, L_T: ArrayLike, supervised: AnySupervisedLaw
    ) -> tuple[Array, Array]:
        """Return kappa, by which the teacher multiplies the student's tokens, and kappa - 1."""
        gain, g = self.k * teacher_excess(L_T, supervised), SHAPES[self.variant].capacity
        if g:
            gain = gain * np.exp(g * supervised.log_capacity_excess(N_S))
        return np.asarray(1.0 + gain), np.asarray(gain)

    def sharpness(self, N_S: ArrayLike, D_S: ArrayLike, supervised: AnySupervisedLaw) -> float | Array:
        """Return p, the exponent of the soft maximum."""
        r = SHAPES[self.variant].sharpening
        return self.q * np.exp(-r * supervised.log_excess(N_S, D_S)) if r else self.q

    def loss(self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: AnySupervisedLaw) -> Array:
        """Return the student's held-out cross-entropy, nats/token."""
        c = teacher_excess(L_T, supervised)
        kappa, _ = self.effective_tokens(N_S, L_T, supervised)
        p = self.sharpness(N_S, D_S, supervised)
        ln_f = supervised.log_excess(N_S, kappa * np.asarray(D_S, dtype=np.float64))
        ln_teacher = np.log(c) - self.eps * np.exp(ln_f) / c
        return np.asarray(supervised.E + np.exp(np.logaddexp(p * ln_f, p * ln_teacher) / p))

    def derivatives(
        self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: AnySupervisedLaw
    ) -> Derivatives:
        """Return the loss and its exact derivatives with respect to every logarithm."""
        s, L_T = supervised, np.asarray(L_T, dtype=np.float64)
        c = teacher_excess(L_T, s)
        kappa, gain = self.effective_tokens(N_S, L_T, s)
        p = self.sharpness(N_S, D_S, s)
        floor = s.derivatives(N_S, kappa * np.asarray(D_S, dtype=np.float64))
        f = floor.loss - s.E
        ratio = self.eps * f / c
        u, v = np.log(f), np.log(c) - ratio  # ln floor, ln shrunk teacher excess
        ln_sum = np.logaddexp(p * u, p * v)
        excess = np.exp(ln_sum / p)
        weight = np.exp(p * u - ln_sum)  # share of the floor in the soft maximum
        by_u = excess * (weight - (1 - weight) * ratio)
        by_ln_c = excess * (1 - weight) * (1 + ratio)
        by_gain = by_u * floor.inputs["D"] / f * gain / kappa  # through kappa, per unit of ln(gain)
        by_p = excess * (weight * u + (1 - weight) * v - ln_sum / p)

        own = {"k": by_gain, "q": by_p, "eps": -excess * (1 - weight) * ratio}
        inner = {name: by_u / f * partial for name, partial in floor.own.items()}
        inner["E"] = s.E - (by_ln_c + by_gain) * s.E / c  # f does not contain E; c does
        inputs = {
            "N_S": by_u / f * floor.inputs["N"],
            "D_S": by_u / f * floor.inputs["D"],
            "L_T": (by_ln_c + by_gain) * L_T / c,
        }
        shape = SHAPES[self.variant]
        if shape.capacity:
            _add_capacity(by_gain * shape.capacity, N_S, s, inputs, inner)
        if shape.sharpening:
            _add_excess(-by_p * shape.sharpening, s.derivatives(N_S, D_S), s, inputs, inner)
        return Derivatives(np.asarray(s.E + excess), inputs, own, inner)


def _add_capacity(
    by: Array, N_S: ArrayLike, supervised: AnySupervisedLaw, inputs: Partials, inner: Partials
) -> None:
    """Add what comes through ln(L(N_S, inf) - E); ``by`` is the loss's derivative with respect to it."""
    by_N, own = supervised.capacity_slopes(by, N_S)
    for name, partial in own.items():
        inner[name] = inner[name] + partial
    inputs["N_S"] = inputs["N_S"] + by_N


def _add_excess(
    by: Array, alone: Derivatives, supervised: AnySupervisedLaw, inputs: Partials, inner: Partials
) -> None:
    """Add what comes through ln(Ls - E); ``by`` is the loss's derivative with respect to it."""
    each = by / (alone.loss - supervised.E)
    for name, partial in alone.own.items():
        if name != "E":  # Ls - E does not contain E
            inner[name] = inner[name] + each * partial
    inputs["N_S"] = inputs["N_S"] + each * alone.inputs["N"]
    inputs["D_S"] = inputs["D_S"] + each * alone.inputs["D"]
