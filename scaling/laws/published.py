"""The distillation law of Busbridge et al. 2025 (Eq. 8), as printed and in its identifiable form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.derivatives import Array, Derivatives, Partials
from scaling.laws.supervised import AnySupervisedLaw, SupervisedLaw


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedLaw9:
    """Busbridge et al. 2025, Eq. 8, as printed: nine coefficients.

    ``L_S = L_T + L_T^-c0 [1 + (L_T/(d1 Ls))^(1/f1)]^(-c1 f1) (A/N_S^alpha + B/D_S^beta)^gamma``

    ``A .. gamma`` are the paper's primed coefficients. ``c1`` and ``d1`` are not separately identifiable:
    fit :class:`PublishedLaw` instead and convert. The form cannot represent a student better than its
    teacher.

    >>> from scaling import Calibration
    >>> law = Calibration.load("busbridge2025-table6").law()
    >>> law.c1, law.d1
    (522.6, 1.315)
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

    def loss(self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: AnySupervisedLaw) -> Array:
        """Return the student's held-out cross-entropy, nats/token."""
        ln_L_T = np.log(L_T)
        gap, *_ = self._gap(ln_L_T, supervised.loss(N_S, D_S))
        return _mimicry_loss(self, N_S, D_S, L_T, ln_L_T, gap)

    def _gap(self, ln_L_T: Array, Ls: Array) -> tuple[Array, Array, Array]:
        """Return the logarithm of the capacity-gap factor, z = ln(L_T/(d1 Ls))/f1, and ln(1 + e^z)."""
        z = (ln_L_T - np.log(Ls) - np.log(self.d1)) / self.f1
        softplus = np.logaddexp(0.0, z)
        return -self.c1 * self.f1 * softplus, z, softplus

    def derivatives(
        self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: AnySupervisedLaw
    ) -> Derivatives:
        """Return the loss and its exact derivatives with respect to every logarithm."""
        Ls = supervised.derivatives(N_S, D_S)
        gap, z, softplus = self._gap(np.log(L_T), Ls.loss)
        by_z = -self.c1 * self.f1 * np.exp(z - softplus)
        own = {
            "c1": gap,
            "d1": -by_z / self.f1 * np.ones_like(z),
            "f1": gap - by_z * z,
        }
        return _mimicry(self, N_S, D_S, L_T, Ls, gap, by_z / self.f1, own)

    def eight_coefficients(self) -> PublishedLaw:
        """Return the limit of this law as c1 grows, with the same k = d1 (c1 f1)^-f1 and f1."""
        k = self.d1 * (self.c1 * self.f1) ** -self.f1
        return PublishedLaw(
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
class PublishedLaw:
    """Eq. 8 of Busbridge et al. 2025 in the eight coefficients that data can determine.

    ``L_S = L_T + L_T^-c0 exp(-(L_T/(k Ls))^(1/f1)) (A/N_S^alpha + B/D_S^beta)^gamma``

    It is the limit c1 -> inf of the printed form at fixed ``k = d1 (c1 f1)^-f1``; ``k`` is the ratio
    L_T/Ls at which the student's ability to mimic has fallen to 1/e.

    >>> from scaling import PublishedLaw, SupervisedLaw
    >>> supervised = SupervisedLaw(E=1.8, A=300.0, B=2000.0, alpha=0.35, beta=0.37)
    >>> law = PublishedLaw(c0=2.5, k=1.4, f1=0.1, A=2.2e3, B=2.5e4, alpha=0.32, beta=0.64, gamma=0.76)
    >>> float(law.loss(300e6, 10e9, 2.2, supervised).round(3))
    2.616
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

    def loss(self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: AnySupervisedLaw) -> Array:
        """Return the student's held-out cross-entropy, nats/token."""
        ln_L_T = np.log(L_T)
        ratio, _ = self._ratio(ln_L_T, supervised.loss(N_S, D_S))
        return _mimicry_loss(self, N_S, D_S, L_T, ln_L_T, -ratio)

    def _ratio(self, ln_L_T: Array, Ls: Array) -> tuple[Array, Array]:
        """Return (L_T/(k Ls))^(1/f1), which exp would overflow without a bound, and its logarithm."""
        ln_ratio = (ln_L_T - np.log(Ls) - np.log(self.k)) / self.f1
        return np.exp(np.minimum(ln_ratio, 700.0)), ln_ratio

    def derivatives(
        self, N_S: ArrayLike, D_S: ArrayLike, L_T: ArrayLike, supervised: AnySupervisedLaw
    ) -> Derivatives:
        """Return the loss and its exact derivatives with respect to every logarithm."""
        Ls = supervised.derivatives(N_S, D_S)
        ratio, ln_ratio = self._ratio(np.log(L_T), Ls.loss)
        own = {"k": ratio / self.f1, "f1": ratio * ln_ratio}
        return _mimicry(self, N_S, D_S, L_T, Ls, -ratio, -ratio / self.f1, own)

    def nine_coefficients(self, c1: float = 522.6) -> PublishedLaw9:
        """Return the law of nine coefficients with this ``c1`` and the same k and f1.

        The default is the paper's value.
        """
        d1 = self.k * (c1 * self.f1) ** self.f1
        return PublishedLaw9(
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
    law: PublishedLaw9 | PublishedLaw,
    N_S: ArrayLike,
    D_S: ArrayLike,
    L_T: ArrayLike,
    ln_L_T: Array,
    gap: Array,
) -> Array:
    """Return L_T + exp(-c0 ln L_T + gap + gamma ln(A/N^alpha + B/D^beta)).

    One exponential of a sum; :func:`_mimicry` needs the factors by themselves, which differ in the last bit.
    """
    return np.asarray(L_T + np.exp(_power(law).log_excess(N_S, D_S) + gap - law.c0 * ln_L_T))


def _power(law: PublishedLaw9 | PublishedLaw) -> SupervisedLaw:
    """Return (A/N^alpha + B/D^beta)^gamma of the primed coefficients, as a law without a constant."""
    return SupervisedLaw(E=0.0, A=law.A, B=law.B, alpha=law.alpha, beta=law.beta, gamma=law.gamma)


def _mimicry(
    law: PublishedLaw9 | PublishedLaw,
    N_S: ArrayLike,
    D_S: ArrayLike,
    L_T: ArrayLike,
    Ls: Derivatives,
    gap: Array,
    gap_by_ln_L_T: Array,
    gap_own: Partials,
) -> Derivatives:
    """Return L_T + exp(-c0 ln L_T + gap) (A/N^alpha + B/D^beta)^gamma and its derivatives.

    ``gap`` is the logarithm of the capacity-gap factor, which falls with L_T/Ls; ``gap_own`` holds its
    derivatives with respect to the logarithms of its own coefficients.
    """
    L_T = np.asarray(L_T, dtype=np.float64)
    ln_L_T = np.log(L_T)
    power = _power(law).derivatives(N_S, D_S)
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
