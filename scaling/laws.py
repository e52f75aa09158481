"""What a scaling law says: cross-entropy as a plain function of parameters, tokens and a teacher.

A law is a frozen dataclass of coefficients. A coefficient may be a float or an array: arrays broadcast
against the inputs, so a law whose coefficients have shape ``(draws, 1)`` evaluates a whole posterior at
once. Everything is computed in log space and stays finite for 1e3..1e15 parameters and 1e3..1e18 tokens.

Symbols follow Busbridge et al., "Distillation Scaling Laws", ICML 2025 (arXiv 2502.08606):

====== ===================================================== =============
N      non-embedding parameters (``_S`` student, ``_T`` teacher)
D      tokens trained on
L      cross-entropy against held-out data                     nats/token
L_T    the teacher's cross-entropy                             nats/token
Ls     what the student would reach supervised, L(N_S, D_S)    nats/token
====== ===================================================== =============

Derivatives are exact and always taken with respect to natural logarithms, of coefficients and of inputs
alike, because that is the scale on which all of them are of order one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Partials = dict[str, Array]


class Derivatives(NamedTuple):
    """A loss and its exact derivatives; every array has the broadcast shape of the inputs."""

    loss: Array
    inputs: Partials
    """d loss / d ln(input), by the name of the input."""
    own: Partials
    """d loss / d ln(coefficient), by the name of this law's own coefficients."""
    supervised: Partials
    """d loss / d ln(coefficient) of the supervised law inside a distillation law; empty otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisedLaw:
    """L(N, D) = E + (A/N^alpha + B/D^beta)^gamma.

    ``gamma = 1`` is Hoffmann et al. 2022 (Eq. 2); a free outer ``gamma`` is Busbridge et al. 2025 (Eq. 1).
    """

    E: float | Array
    A: float | Array
    B: float | Array
    alpha: float | Array
    beta: float | Array
    gamma: float | Array = 1.0

    inputs: ClassVar[tuple[str, ...]] = ("N", "D")

    def log_excess(self, N: ArrayLike, D: ArrayLike) -> Array:
        """ln(L - E), the part of the loss that scale can remove."""
        capacity = np.log(self.A) - self.alpha * np.log(N)
        data = np.log(self.B) - self.beta * np.log(D)
        return np.asarray(self.gamma * np.logaddexp(capacity, data), dtype=np.float64)

    def loss(self, N: ArrayLike, D: ArrayLike) -> Array:
        """Cross-entropy in nats/token of ``N`` non-embedding parameters trained on ``D`` tokens."""
        return np.asarray(self.E + np.exp(self.log_excess(N, D)), dtype=np.float64)

    def derivatives(self, N: ArrayLike, D: ArrayLike) -> Derivatives:
        """The loss and its exact derivatives with respect to every logarithm."""
        ln_N, ln_D = np.log(N), np.log(D)
        capacity = np.log(self.A) - self.alpha * ln_N
        data = np.log(self.B) - self.beta * ln_D
        ln_sum = np.logaddexp(capacity, data)
        excess = np.exp(self.gamma * ln_sum)
        by_capacity = excess * self.gamma * np.exp(capacity - ln_sum)
        by_data = excess * self.gamma * np.exp(data - ln_sum)
        own = {
            "E": self.E + np.zeros_like(excess),
            "A": by_capacity,
            "B": by_data,
            "alpha": -by_capacity * self.alpha * ln_N,
            "beta": -by_data * self.beta * ln_D,
            "gamma": excess * self.gamma * ln_sum,
        }
        inputs = {"N": -self.alpha * by_capacity, "D": -self.beta * by_data}
        return Derivatives(np.asarray(self.E + excess), inputs, own, {})


@runtime_checkable
class DistillationLaw(Protocol):
    """What the planner and the fit ask of a law for the student's loss."""

    inputs: ClassVar[tuple[str, ...]] = ("N_S", "D_S", "L_T")

    def loss(self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: SupervisedLaw) -> Array:
        """The student's cross-entropy against data, nats/token."""
        ...

    def derivatives(
        self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: SupervisedLaw
    ) -> Derivatives:
        """The loss and its exact derivatives with respect to every logarithm."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectiveTokensLaw:
    """A teacher multiplies the student's tokens by kappa; the student is a soft maximum of both.

    With the teacher's excess c = L_T - E and the student's floor f = L(N_S, kappa D_S) - E::

        kappa = 1 + k c                                             ("simple")
        kappa = 1 + k c (L(N_S, inf) - E)                           ("capacity")
        L_S   = E + [ f^q + (c exp(-eps f/c))^q ]^(1/q)

    Three coefficients instead of eight, so a small sweep can identify it. It represents students better
    than their teacher; it is not to be trusted for students above 2e9 parameters.
    """

    k: float | Array
    q: float | Array
    eps: float | Array
    variant: str = "simple"

    inputs: ClassVar[tuple[str, ...]] = ("N_S", "D_S", "L_T")
    variants: ClassVar[tuple[str, ...]] = ("simple", "capacity")

    def __post_init__(self) -> None:
        if self.variant not in self.variants:
            raise ValueError(f"variant must be one of {', '.join(self.variants)}, not {self.variant!r}")

    def effective_tokens(
        self, N_S: ArrayLike, L_T: ArrayLike, supervised: SupervisedLaw
    ) -> tuple[Array, Array]:
        """kappa, the factor by which the teacher multiplies tokens, and kappa - 1."""
        gain = self.k * teacher_excess(L_T, supervised)
        if self.variant == "capacity":
            gain = gain * np.exp(supervised.gamma * (np.log(supervised.A) - supervised.alpha * np.log(N_S)))
        return np.asarray(1.0 + gain), np.asarray(gain)

    def loss(self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: SupervisedLaw) -> Array:
        """The student's cross-entropy against data, nats/token."""
        c = teacher_excess(L_T, supervised)
        kappa, _ = self.effective_tokens(N_S, L_T, supervised)
        ln_f = supervised.log_excess(N_S, kappa * np.asarray(D_S, dtype=np.float64))
        ln_teacher = np.log(c) - self.eps * np.exp(ln_f) / c
        return np.asarray(supervised.E + np.exp(np.logaddexp(self.q * ln_f, self.q * ln_teacher) / self.q))

    def derivatives(
        self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: SupervisedLaw
    ) -> Derivatives:
        """The loss and its exact derivatives with respect to every logarithm."""
        s, L_T = supervised, np.asarray(L_T, dtype=np.float64)
        c = teacher_excess(L_T, s)
        kappa, gain = self.effective_tokens(N_S, L_T, s)
        floor = s.derivatives(N_S, kappa * np.asarray(D_S, dtype=np.float64))
        f = floor.loss - s.E
        ratio = self.eps * f / c
        u, v = np.log(f), np.log(c) - ratio  # ln floor, ln shrunk teacher excess
        ln_sum = np.logaddexp(self.q * u, self.q * v)
        excess = np.exp(ln_sum / self.q)
        weight = np.exp(self.q * u - ln_sum)  # share of the floor in the soft maximum
        by_u = excess * (weight - (1 - weight) * ratio)
        by_ln_c = excess * (1 - weight) * (1 + ratio)
        by_kappa = by_u * floor.inputs["D"] / f * gain / kappa  # through kappa, per unit of ln(gain)

        spread = weight * u + (1 - weight) * v - ln_sum / self.q
        own = {"k": by_kappa, "q": excess * spread, "eps": -excess * (1 - weight) * ratio}

        inner = {name: by_u / f * partial for name, partial in floor.own.items()}
        inner["E"] = s.E - (by_ln_c + by_kappa) * s.E / c  # f does not contain E; c does
        inputs = {
            "N_S": by_u / f * floor.inputs["N"],
            "D_S": by_u / f * floor.inputs["D"],
            "L_T": (by_ln_c + by_kappa) * L_T / c,
        }
        if self.variant == "capacity":
            ln_capacity = np.log(s.A) - s.alpha * np.log(N_S)
            inner["A"] = inner["A"] + by_kappa * s.gamma
            inner["alpha"] = inner["alpha"] - by_kappa * s.gamma * s.alpha * np.log(N_S)
            inner["gamma"] = inner["gamma"] + by_kappa * s.gamma * ln_capacity
            inputs["N_S"] = inputs["N_S"] - by_kappa * s.gamma * s.alpha
        return Derivatives(np.asarray(s.E + excess), inputs, own, inner)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedLaw:
    """Busbridge et al. 2025, Eq. 8, as printed: nine coefficients.

    ``L_S = L_T + L_T^-c0 [1 + (L_T/(d1 Ls))^(1/f1)]^(-c1 f1) (A/N_S^alpha + B/D_S^beta)^gamma``

    ``A .. gamma`` are the paper's primed coefficients. ``c1`` and ``d1`` are not separately identifiable:
    fit :class:`IdentifiableLaw` instead and convert. The form cannot represent a student better than its
    teacher.
    """

    c0: float | Array
    c1: float | Array
    d1: float | Array
    f1: float | Array
    A: float | Array
    B: float | Array
    alpha: float | Array
    beta: float | Array
    gamma: float | Array = 1.0

    inputs: ClassVar[tuple[str, ...]] = ("N_S", "D_S", "L_T")

    def loss(self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: SupervisedLaw) -> Array:
        """The student's cross-entropy against data, nats/token."""
        ln_L_T = np.log(L_T)
        z = (ln_L_T - np.log(supervised.loss(N_S, D_S)) - np.log(self.d1)) / self.f1
        return _mimicry_loss(self, N_S, D_S, L_T, ln_L_T, -self.c1 * self.f1 * np.logaddexp(0.0, z))

    def derivatives(
        self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: SupervisedLaw
    ) -> Derivatives:
        """The loss and its exact derivatives with respect to every logarithm."""
        Ls = supervised.derivatives(N_S, D_S)
        z = (np.log(L_T) - np.log(Ls.loss) - np.log(self.d1)) / self.f1
        softplus, sigmoid = np.logaddexp(0.0, z), np.exp(z - np.logaddexp(0.0, z))
        by_z = -self.c1 * self.f1 * sigmoid
        gap = -self.c1 * self.f1 * softplus
        own = {
            "c1": gap,
            "d1": -by_z / self.f1 * np.ones_like(z),
            "f1": gap - by_z * z,
        }
        return _mimicry(self, N_S, D_S, L_T, Ls, gap, by_z / self.f1, own)

    def identifiable(self) -> IdentifiableLaw:
        """The eight-coefficient limit with the same k and f1 (Eq. 8 as c1 grows with k held)."""
        k = self.d1 * (self.c1 * self.f1) ** -self.f1
        return IdentifiableLaw(
            c0=self.c0,
            k=k,
            f1=self.f1,
            A=self.A,
            B=self.B,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentifiableLaw:
    """Eq. 8 of Busbridge et al. 2025 in the eight coefficients that data can determine.

    ``L_S = L_T + L_T^-c0 exp(-(L_T/(k Ls))^(1/f1)) (A/N_S^alpha + B/D_S^beta)^gamma``

    It is the limit c1 -> inf of the printed form at fixed ``k = d1 (c1 f1)^-f1``; ``k`` is the ratio
    L_T/Ls at which the student's ability to mimic has fallen to 1/e.
    """

    c0: float | Array
    k: float | Array
    f1: float | Array
    A: float | Array
    B: float | Array
    alpha: float | Array
    beta: float | Array
    gamma: float | Array = 1.0

    inputs: ClassVar[tuple[str, ...]] = ("N_S", "D_S", "L_T")

    def loss(self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: SupervisedLaw) -> Array:
        """The student's cross-entropy against data, nats/token."""
        ln_L_T = np.log(L_T)
        ln_ratio = (ln_L_T - np.log(supervised.loss(N_S, D_S)) - np.log(self.k)) / self.f1
        return _mimicry_loss(self, N_S, D_S, L_T, ln_L_T, -np.exp(np.minimum(ln_ratio, 700.0)))

    def derivatives(
        self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: SupervisedLaw
    ) -> Derivatives:
        """The loss and its exact derivatives with respect to every logarithm."""
        Ls = supervised.derivatives(N_S, D_S)
        ln_ratio = (np.log(L_T) - np.log(Ls.loss) - np.log(self.k)) / self.f1
        ratio = np.exp(np.minimum(ln_ratio, 700.0))
        own = {"k": ratio / self.f1, "f1": ratio * ln_ratio}
        return _mimicry(self, N_S, D_S, L_T, Ls, -ratio, -ratio / self.f1, own)

    def published(self, c1: float = 522.6) -> PublishedLaw:
        """The nine-coefficient law with this ``c1`` and the same k and f1 (522.6 is the paper's value)."""
        d1 = self.k * (c1 * self.f1) ** self.f1
        return PublishedLaw(
            c0=self.c0,
            c1=c1,
            d1=d1,
            f1=self.f1,
            A=self.A,
            B=self.B,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
        )


def _mimicry_loss(
    law: PublishedLaw | IdentifiableLaw,
    N_S: ArrayLike,
    D_S: ArrayLike,
    L_T: ArrayLike,
    ln_L_T: Array,
    gap: Array,
) -> Array:
    """L_T + exp(-c0 ln L_T + gap + gamma ln(A/N^alpha + B/D^beta))."""
    power = SupervisedLaw(E=0.0, A=law.A, B=law.B, alpha=law.alpha, beta=law.beta, gamma=law.gamma)
    return np.asarray(L_T + np.exp(power.log_excess(N_S, D_S) + gap - law.c0 * ln_L_T))


def _mimicry(
    law: PublishedLaw | IdentifiableLaw,
    N_S: ArrayLike,
    D_S: ArrayLike,
    L_T: ArrayLike,
    Ls: Derivatives,
    gap: Array,
    gap_by_ln_L_T: Array,
    gap_own: Partials,
) -> Derivatives:
    """L_T + exp(-c0 ln L_T + gap + gamma ln(A/N^alpha + B/D^beta)), and its derivatives.

    ``gap`` is the logarithm of the capacity-gap factor, which falls with L_T/Ls; ``gap_own`` holds its
    derivatives with respect to the logarithms of its own coefficients.
    """
    L_T = np.asarray(L_T, dtype=np.float64)
    ln_L_T = np.log(L_T)
    scale = SupervisedLaw(E=0.0, A=law.A, B=law.B, alpha=law.alpha, beta=law.beta, gamma=law.gamma)
    power = scale.derivatives(N_S, D_S)
    rest = np.exp(-law.c0 * ln_L_T + gap)  # everything in the second term but the power law
    term = rest * power.loss
    by_Ls = -term * gap_by_ln_L_T / Ls.loss
    own = {name: term * partial for name, partial in gap_own.items()}
    own |= {name: rest * partial for name, partial in power.own.items() if name != "E"}
    own["c0"] = -term * law.c0 * ln_L_T
    inputs = {
        "N_S": rest * power.inputs["N"] + by_Ls * Ls.inputs["N"],
        "D_S": rest * power.inputs["D"] + by_Ls * Ls.inputs["D"],
        "L_T": L_T + term * (gap_by_ln_L_T - law.c0),
    }
    inner = {name: by_Ls * partial for name, partial in Ls.own.items()}
    return Derivatives(np.asarray(L_T + term), inputs, own, inner)


def teacher_excess(L_T: ArrayLike, supervised: SupervisedLaw) -> Array:
    """c = L_T - E, kept positive: no teacher is better than the irreducible loss."""
    return np.maximum(np.asarray(L_T, dtype=np.float64) - supervised.E, 1e-12)


def coefficients(law: SupervisedLaw | DistillationLaw) -> dict[str, float | Array]:
    """The numeric coefficients of a law by name, in the order of its definition."""
    values = {field.name: getattr(law, field.name) for field in fields(law)}  # type: ignore[arg-type]
    return {name: value for name, value in values.items() if not isinstance(value, str)}
