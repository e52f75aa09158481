"""Coordinates in which supervised laws other than the power law are fitted, of order one at the runs."""

from __future__ import annotations

import numpy as np

from fits.estimation.laws.parametrization import Array, Center, Coordinate, SupervisedCoordinates
from scaling.errors import InputError
from scaling.laws import FarseerLaw, OverTrainingLaw, Partials
from scaling.laws.over_training import LN_6


class OverTrainingCoordinates:
    """Coordinates (ln E, a, b, ln 2 eta) of the over-training law: those of a power law with one exponent."""

    names = ("E", "a", "b", "eta")

    def __init__(self, center: Center) -> None:
        self.power = SupervisedCoordinates(center)
        ln_E, a, b, slope, *_ = self.power.space
        self.space: tuple[Coordinate, ...] = (ln_E, a, b, slope)

    def _full(self, theta: Array) -> Array:
        return np.concatenate([theta, theta[..., 3:4], np.zeros_like(theta[..., :1])], axis=-1)

    def law(self, theta: Array) -> OverTrainingLaw:
        """Return the law at ``theta`` (..., 4); its coefficients have shape (..., 1)."""
        return OverTrainingLaw.of(self.power.law(self._full(theta)))

    def theta(self, law: OverTrainingLaw) -> Array:
        """Return the coordinates (4,) of a law; (draws, 4) where its coefficients have shape (draws,)."""
        return self.power.theta(law.power_law())[..., :4]

    def columns(self, law: OverTrainingLaw, by: Partials) -> list[Array]:
        """Return d loss / d theta, one (..., n) array per coordinate, from d loss / d ln(coefficient)."""
        lift = LN_6 * law.eta
        ln_N, ln_D = self.power.center.ln_N, self.power.center.ln_D
        # A = exp(a + 2 eta ln N0), and a, b of the law are A and B times 6^eta
        by_slope = by["eta"] + by["a"] * (2 * law.eta * ln_N + lift) + by["b"] * (2 * law.eta * ln_D + lift)
        return [by["E"], by["a"], by["b"], by_slope]


POWERS = (1.0, -1.0, 1.0)
"""Signs of Farseer's exponents alpha, beta and gamma, as in the law's paper."""


class FarseerCoordinates:
    """Coordinates of Farseer: value, slope in ln N and power of each of its three functions of N.

    The functions are ln of the floor, ln of the tokens' term at the mean ln D of the runs, and ln of the
    exponent of tokens, each c + d (exp(p x) - 1)/p with x = ln N - ln N0. Runs seldom determine the powers
    p, whose priors are narrow: a factor of e^0.5 around 0.12, with the signs of the paper.
    """

    names = ("a1", "b1", "alpha", "a2", "b2", "beta", "a3", "b3", "gamma")

    def __init__(self, center: Center) -> None:
        self.center = center
        lowest = float(np.log(center.lowest_loss))
        self.space: tuple[Coordinate, ...] = (
            Coordinate(name="ln exponent", lower=-4.0, upper=1.0, prior=float(np.log(0.35)), prior_sd=0.6),
            _linear("slope of ln exponent", 0.0, 0.1, 0.5),
            _power("alpha"),
            Coordinate(name="ln data term", lower=-14.0, upper=6.0, prior=-0.7, prior_sd=1.5),
            _linear("slope of ln data term", 0.0, 0.15, 1.0),
            _power("beta"),
            Coordinate(
                name="ln floor", lower=lowest - 3.0, upper=lowest + 0.5, prior=lowest - 0.2, prior_sd=0.3
            ),
            _linear("slope of ln floor", -0.05, 0.05, 0.5),
            _power("gamma"),
        )

    def law(self, theta: Array) -> FarseerLaw:
        """Return the law at ``theta`` (..., 9); its coefficients have shape (..., 1)."""
        c1, d1, p1, c2, d2, p2, c3, d3, p3 = np.moveaxis(theta[..., None], -2, 0)
        alpha, beta, gamma = (sign * np.exp(p) for sign, p in zip(POWERS, (p1, p2, p3), strict=True))
        ln_N, ln_D = self.center.ln_N, self.center.ln_D
        # the tokens' term at ln D0 is a2 N^beta + b2 - exp(a1 N^alpha + b1) ln D0, which is given by its
        # value and slope at N0, so that a2 and b2 make up for what the exponent contributes there
        exponent = np.exp(c1)
        (a1, b1), (a3, b3) = _amplitudes(c1, d1, alpha, ln_N), _amplitudes(c3, d3, gamma, ln_N)
        a2, b2 = _amplitudes(c2 + exponent * ln_D, d2 + exponent * d1 * ln_D, beta, ln_N)
        return FarseerLaw(a1=a1, b1=b1, alpha=alpha, a2=a2, b2=b2, beta=beta, a3=a3, b3=b3, gamma=gamma)

    def theta(self, law: FarseerLaw) -> Array:
        """Return the coordinates (9,) of a law; (draws, 9) where its coefficients have shape (draws,).

        Raises:
            InputError: if an exponent has not the sign that it has in the paper.
        """
        if not all(np.all(sign * np.asarray(p) > 0) for sign, p in zip(POWERS, _powers(law), strict=True)):
            raise InputError("Farseer is fitted with alpha > 0, beta < 0 and gamma > 0, as in its paper")
        ln_N, ln_D = self.center.ln_N, self.center.ln_D
        c1, d1 = _value_and_slope(law.a1, law.b1, law.alpha, ln_N)
        c2, d2 = _value_and_slope(law.a2, law.b2, law.beta, ln_N)
        c3, d3 = _value_and_slope(law.a3, law.b3, law.gamma, ln_N)
        exponent = np.exp(c1)
        powers = [np.log(sign * np.asarray(p)) for sign, p in zip(POWERS, _powers(law), strict=True)]
        at = (
            c1,
            d1,
            powers[0],
            c2 - exponent * ln_D,
            d2 - exponent * d1 * ln_D,
            powers[1],
            c3,
            d3,
            powers[2],
        )
        return np.stack(np.broadcast_arrays(*at), axis=-1)

    def columns(self, law: FarseerLaw, by: Partials) -> list[Array]:
        """Return d loss / d theta, one (..., n) array per coordinate, from d loss / d coefficient."""
        ln_N, ln_D = self.center.ln_N, self.center.ln_D
        c1, d1 = _value_and_slope(law.a1, law.b1, law.alpha, ln_N)
        first = _columns(law.a1, law.alpha, ln_N, by, ("a1", "b1", "alpha"))
        second = _columns(law.a2, law.beta, ln_N, by, ("a2", "b2", "beta"))
        third = _columns(law.a3, law.gamma, ln_N, by, ("a3", "b3", "gamma"))
        exponent = np.exp(c1) * ln_D
        by_c1 = first[0] + second[0] * exponent + second[1] * exponent * d1
        by_d1 = first[1] + second[1] * exponent
        return [by_c1, by_d1, first[2], *second, *third]


def _linear(name: str, prior: float, prior_sd: float, reach: float) -> Coordinate:
    return Coordinate(name=name, lower=prior - reach, upper=prior + reach, prior=prior, prior_sd=prior_sd)


def _power(name: str) -> Coordinate:
    center = float(np.log(0.12))
    return Coordinate(
        name=f"ln |{name}|",
        lower=center - 3.0,
        upper=center + 2.5,
        prior=center,
        prior_sd=0.5,
        held_by_prior=True,
    )


def _powers(law: FarseerLaw) -> tuple[float | Array, float | Array, float | Array]:
    return law.alpha, law.beta, law.gamma


def _amplitudes(value: Array, slope: Array, power: Array, ln_N: float) -> tuple[Array, Array]:
    """Return a and b of a N^power + b, from its value and its slope in ln N at ``ln_N``."""
    return slope / power * np.exp(-power * ln_N), value - slope / power


def _value_and_slope(
    a: float | Array, b: float | Array, power: float | Array, ln_N: float
) -> tuple[Array, Array]:
    rise = np.asarray(a * np.exp(np.asarray(power) * ln_N))
    return np.asarray(rise + b), np.asarray(power * rise)


def _columns(
    a: float | Array, power: float | Array, ln_N: float, by: Partials, names: tuple[str, ...]
) -> list[Array]:
    """Return the derivatives by value, slope and ln |power| of one function of N."""
    by_a, by_b, by_power = (by[name] for name in names)
    by_slope = (by_a * np.exp(-np.asarray(power) * ln_N) - by_b) / power
    rise = a * np.exp(np.asarray(power) * ln_N)  # slope over power
    return [by_b, by_slope, by_power * power - by_a * a * (1.0 + power * ln_N) + by_b * rise]
