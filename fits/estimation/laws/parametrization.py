"""Coordinates in which a law is fitted: centered, logarithmic, and of order one.

The coefficients of a scaling law are almost collinear (the correlation of ln A and alpha exceeds .99 on every
public data set). Here an amplitude is the logarithm of its own term of the loss *at the center of the runs*,
and an exponent is the slope of that term, ``gamma * alpha``; both are determined by the data where A and
alpha are not, and the condition of the problem falls from 1e8 to about 1e2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from scaling.laws import (
    AnySupervisedLaw,
    DistillationLaw,
    EffectiveTokensLaw,
    Partials,
    PublishedLaw,
    PublishedLaw9,
    SupervisedLaw,
    coefficients,
)

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Center:
    """Center of the runs, in natural logarithms, and the lowest loss of any run or teacher."""

    ln_N: float
    ln_D: float
    ln_L: float
    lowest_loss: float


UNIT = Center(ln_N=0.0, ln_D=0.0, ln_L=0.0, lowest_loss=1.0)
"""Center of one run of one parameter and one token, for code that needs names and no numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Coordinate:
    """Fitted coordinate: name, bounds and weak prior."""

    name: str
    lower: float
    upper: float
    prior: float
    prior_sd: float
    held_by_prior: bool = False
    """True if the prior stands in for runs that seldom determine it: no run is asked for it."""


class Prior(NamedTuple):
    """Normal prior of a fitted coordinate."""

    center: float
    sd: float

    def times(self, other: Prior) -> Prior:
        """Return the product of both densities, normalized."""
        precision, others = self.sd**-2.0, other.sd**-2.0
        total = precision + others
        return Prior((precision * self.center + others * other.center) / total, total**-0.5)


def with_prior(coordinate: Coordinate, prior: Prior | None) -> Coordinate:
    """Return the coordinate under another prior; None leaves its own."""
    return coordinate if prior is None else replace(coordinate, prior=prior.center, prior_sd=prior.sd)


def _log(name: str, lower: float, upper: float, prior: float, prior_sd: float) -> Coordinate:
    return Coordinate(
        name=f"ln {name}",
        lower=float(np.log(lower)),
        upper=float(np.log(upper)),
        prior=float(np.log(prior)),
        prior_sd=prior_sd,
    )


class SupervisedCoordinates:
    """Coordinates (ln E, a, b, ln gamma*alpha, ln gamma*beta, ln gamma) of the supervised law.

    L = E + (A/N^alpha + B/D^beta)^gamma.

    ``a = gamma (ln A - alpha ln N0)`` and ``b = gamma (ln B - beta ln D0)``.
    """

    names: ClassVar[tuple[str, ...]] = ("E", "A", "B", "alpha", "beta", "gamma")

    def __init__(self, center: Center) -> None:
        self.center = center
        self.space: tuple[Coordinate, ...] = (
            _log("E", 1e-2 * center.lowest_loss, 0.999 * center.lowest_loss, 0.6 * center.lowest_loss, 0.5),
            Coordinate(name="a", lower=-14.0, upper=6.0, prior=-0.7, prior_sd=1.5),
            Coordinate(name="b", lower=-14.0, upper=6.0, prior=-0.7, prior_sd=1.5),
            _log("gamma*alpha", 5e-3, 2.5, 0.3, 0.6),
            _log("gamma*beta", 5e-3, 2.5, 0.3, 0.6),
            replace(_log("gamma", 0.15, 8.0, 0.55, 0.4), held_by_prior=True),
        )

    def law(self, theta: Array) -> SupervisedLaw:
        """Return the law at ``theta`` (..., 6); its coefficients have shape (..., 1)."""
        ln_E, a, b, ln_slope_N, ln_slope_D, ln_gamma = np.moveaxis(theta[..., None], -2, 0)
        gamma = np.exp(ln_gamma)
        alpha, beta = np.exp(ln_slope_N - ln_gamma), np.exp(ln_slope_D - ln_gamma)
        A = np.exp(a / gamma + alpha * self.center.ln_N)
        B = np.exp(b / gamma + beta * self.center.ln_D)
        return SupervisedLaw(E=np.exp(ln_E), A=A, B=B, alpha=alpha, beta=beta, gamma=gamma)

    def theta(self, law: SupervisedLaw) -> Array:
        """Return the coordinates (6,) of a law; (draws, 6) where its coefficients have shape (draws,)."""
        a = law.gamma * (np.log(law.A) - law.alpha * self.center.ln_N)
        b = law.gamma * (np.log(law.B) - law.beta * self.center.ln_D)
        slopes = np.log(law.gamma * law.alpha), np.log(law.gamma * law.beta)
        return np.stack(np.broadcast_arrays(np.log(law.E), a, b, *slopes, np.log(law.gamma)), axis=-1)

    def columns(self, law: SupervisedLaw, by: Partials) -> list[Array]:
        """Return d loss / d theta, one (..., n) array per coordinate, from d loss / d ln(coefficient)."""
        return [by["E"], *_power_columns(law, by, self.center)]


class EffectiveTokensCoordinates:
    """Coordinates (ln k, ln q, ln eps) of the effective-tokens law."""

    names: ClassVar[tuple[str, ...]] = ("k", "q", "eps")

    def __init__(self, center: Center, variant: str = "simple") -> None:
        self.center = center
        self.variant = variant
        self.space: tuple[Coordinate, ...] = (
            _log("k", 1e-4, 1e3, 1.4, 1.0),
            _log("q", 1.0, 200.0, 9.0, 0.5),
            _log("eps", 1e-4, 1.0, 0.025, 1.0),
        )

    def law(self, theta: Array) -> EffectiveTokensLaw:
        """Return the law at ``theta`` (..., 3); its coefficients have shape (..., 1)."""
        k, q, eps = np.moveaxis(np.exp(theta)[..., None], -2, 0)
        return EffectiveTokensLaw(k=k, q=q, eps=eps, variant=self.variant)

    def theta(self, law: EffectiveTokensLaw) -> Array:
        """Return the coordinates (3,) of a law with scalar coefficients."""
        return np.log(np.array([law.k, law.q, law.eps], dtype=np.float64))

    def columns(self, law: EffectiveTokensLaw, by: Partials) -> list[Array]:  # noqa: ARG002
        """Return d loss / d theta, one (..., n) array per coordinate, from d loss / d ln(coefficient)."""
        return [by["k"], by["q"], by["eps"]]


class PublishedCoordinates:
    """Coordinates (ln c0, ln k, ln f1, a, b, ln gamma*alpha, ln gamma*beta, ln gamma) of the published law.

    ``a`` and ``b`` are the logarithms of the two terms at N0, D0 and L0, the factor ``L_T^-c0`` included.
    """

    names: ClassVar[tuple[str, ...]] = ("c0", "k", "f1", "A", "B", "alpha", "beta", "gamma")

    def __init__(self, center: Center) -> None:
        self.center = center
        self.space: tuple[Coordinate, ...] = (
            _log("c0", 1e-2, 30.0, 2.4, 0.7),
            _log("k", 0.3, 5.0, 0.92, 0.3),
            _log("f1", 5e-3, 3.0, 0.1, 0.7),
            Coordinate(name="a", lower=-14.0, upper=6.0, prior=-1.5, prior_sd=1.5),
            Coordinate(name="b", lower=-14.0, upper=6.0, prior=-1.5, prior_sd=1.5),
            _log("gamma*alpha", 5e-3, 2.5, 0.25, 0.7),
            _log("gamma*beta", 5e-3, 2.5, 0.3, 0.7),
            _log("gamma", 0.15, 8.0, 1.0, 0.7),
        )

    def law(self, theta: Array) -> PublishedLaw:
        """Return the law at ``theta`` (..., 8); its coefficients have shape (..., 1)."""
        ln_c0, ln_k, ln_f1, a, b, ln_slope_N, ln_slope_D, ln_gamma = np.moveaxis(theta[..., None], -2, 0)
        gamma, c0 = np.exp(ln_gamma), np.exp(ln_c0)
        alpha, beta = np.exp(ln_slope_N - ln_gamma), np.exp(ln_slope_D - ln_gamma)
        A = np.exp((a + c0 * self.center.ln_L) / gamma + alpha * self.center.ln_N)
        B = np.exp((b + c0 * self.center.ln_L) / gamma + beta * self.center.ln_D)
        return PublishedLaw(
            c0=c0, k=np.exp(ln_k), f1=np.exp(ln_f1), A=A, B=B, alpha=alpha, beta=beta, gamma=gamma
        )

    def theta(self, law: PublishedLaw) -> Array:
        """Return the coordinates (8,) of a law with scalar coefficients."""
        lift = law.c0 * self.center.ln_L
        a = law.gamma * (np.log(law.A) - law.alpha * self.center.ln_N) - lift
        b = law.gamma * (np.log(law.B) - law.beta * self.center.ln_D) - lift
        own = np.log(np.array([law.c0, law.k, law.f1], dtype=np.float64))
        slopes = np.array([law.gamma * law.alpha, law.gamma * law.beta, law.gamma], dtype=np.float64)
        return np.concatenate([own, [a, b], np.log(slopes)])

    def columns(self, law: PublishedLaw, by: Partials) -> list[Array]:
        """Return d loss / d theta, one (..., n) array per coordinate, from d loss / d ln(coefficient)."""
        by_c0 = by["c0"] + (by["A"] + by["B"]) * law.c0 * self.center.ln_L / law.gamma
        return [by_c0, by["k"], by["f1"], *_power_columns(law, by, self.center)]


class NineCoordinates:
    """Coordinates of Eq. 8 as printed: those of :class:`PublishedCoordinates`, and ln c1.

    ``d1 = k (c1 f1)^f1``. c1 is nearly unidentifiable; a fit that ends at its bound reports it.
    """

    names: ClassVar[tuple[str, ...]] = ("c0", "c1", "d1", "f1", "A", "B", "alpha", "beta", "gamma")

    def __init__(self, center: Center) -> None:
        self.eight = PublishedCoordinates(center)
        self.space: tuple[Coordinate, ...] = (*self.eight.space, _log("c1", 1.0, 1e6, 300.0, 2.0))

    def law(self, theta: Array) -> PublishedLaw9:
        """Return the law at ``theta`` (..., 9); its coefficients have shape (..., 1)."""
        eight = self.eight.law(theta[..., :8])
        c1 = np.exp(theta[..., 8:9])
        own = {name: value for name, value in coefficients(eight).items() if name != "k"}
        return PublishedLaw9(c1=c1, d1=eight.k * (c1 * eight.f1) ** eight.f1, **own)

    def columns(self, law: PublishedLaw9, by: Partials) -> list[Array]:
        """Return d loss / d theta, one (..., n) array per coordinate, from d loss / d ln(coefficient)."""
        ln_c1f1 = np.log(law.c1 * law.f1)
        by = {**by, "k": by["d1"], "f1": by["f1"] + by["d1"] * law.f1 * (ln_c1f1 + 1.0)}
        return [*self.eight.columns(law.eight_coefficients(), by), by["c1"] + by["d1"] * law.f1]


Law = AnySupervisedLaw | DistillationLaw
L = TypeVar("L", bound=DistillationLaw)
S = TypeVar("S", bound=AnySupervisedLaw)


class AnySupervisedCoordinates(Protocol[S]):
    """Mapping between fitted coordinates and the coefficients of a supervised law."""

    space: tuple[Coordinate, ...]

    def law(self, theta: Array) -> S:
        """Return the law at ``theta`` (..., p); its coefficients have shape (..., 1)."""
        ...

    def theta(self, law: S) -> Array:
        """Return the coordinates (p,) of a law; (draws, p) where its coefficients have shape (draws,)."""
        ...

    def columns(self, law: S, by: Partials) -> list[Array]:
        """Return d loss / d theta, one (..., n) array per coordinate, from d loss / d ln(coefficient)."""
        ...


class DistillationCoordinates(Protocol[L]):
    """Mapping between fitted coordinates and the coefficients of a distillation law."""

    space: tuple[Coordinate, ...]

    def law(self, theta: Array) -> L:
        """Return the law at ``theta`` (..., p); its coefficients have shape (..., 1)."""
        ...

    def columns(self, law: L, by: Partials) -> list[Array]:
        """Return d loss / d theta, one (..., n) array per coordinate, from d loss / d ln(coefficient)."""
        ...


def _power_columns(law: SupervisedLaw | PublishedLaw, by: Partials, center: Center) -> list[Array]:
    """Return the columns of (a, b, ln gamma*alpha, ln gamma*beta, ln gamma), common to both power laws.

    A = exp(a/gamma + alpha ln N0) and alpha = slope/gamma, so ln gamma moves ln A by -ln A and alpha by -1.
    """
    by_a, by_b = by["A"] / law.gamma, by["B"] / law.gamma
    by_alpha = by["alpha"] + by["A"] * law.alpha * center.ln_N
    by_beta = by["beta"] + by["B"] * law.beta * center.ln_D
    by_gamma = by["gamma"] - by["alpha"] - by["beta"] - by["A"] * np.log(law.A) - by["B"] * np.log(law.B)
    return [by_a, by_b, by_alpha, by_beta, by_gamma]
