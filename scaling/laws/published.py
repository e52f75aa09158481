"""The distillation law of Busbridge et al. 2025 (Eq. 8), as printed and in its identifiable form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.derivatives import Array, Derivatives, Partials
from scaling.laws.supervised import SupervisedLaw


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
