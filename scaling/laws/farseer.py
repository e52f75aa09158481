"""Farseer, a supervised law whose exponent of tokens depends on the model's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.derivatives import Array, Derivatives, Partials


class _Parts(NamedTuple):
    """Logarithms of the two terms of the loss, of the exponent of tokens, and the powers of N in them."""

    floor: Array
    data: Array
    slope: Array
    """Exponent of tokens, not its logarithm."""
    powers: tuple[Array, Array, Array]
    """N^alpha, N^beta, N^gamma."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FarseerLaw:
    """L(N, D) = exp(a3 N^gamma + b3) + exp(a2 N^beta + b2) D^-exp(a1 N^alpha + b1).

    Li et al. 2025, "Predictable Scale: Part II, Farseer" (arXiv 2506.10972), Eq. 3: nine coefficients of
    either sign, N and D in single parameters and tokens. Floor, amplitude and exponent of the tokens' term
    each have a power of N of their own. Where a3 < 0 < gamma, the floor falls to zero as N grows: the law
    has no irreducible loss, and distillation laws that need one (effective-tokens) cannot stand on it.

    >>> from scaling.laws import FarseerLaw
    >>> first, second = {"a1": -0.1, "b1": 0.3, "alpha": 0.12}, {"a2": 90.0, "b2": -5.0, "beta": -0.1}
    >>> law = FarseerLaw(**first, **second, a3=-0.02, b3=0.9, gamma=0.17)
    >>> bool(law.loss(1e9, 1e11) > law.loss(2e9, 1e11) > law.loss(2e9, 2e11))
    True
    """

    a1: float | Array
    b1: float | Array
    alpha: float | Array
    a2: float | Array
    b2: float | Array
    beta: float | Array
    a3: float | Array
    b3: float | Array
    gamma: float | Array

    inputs: ClassVar[tuple[str, ...]] = ("N", "D")
    signed: ClassVar[tuple[str, ...]] = ("a1", "b1", "alpha", "a2", "b2", "beta", "a3", "b3", "gamma")

    @property
    def E(self) -> float:  # noqa: N802
        """The irreducible loss, which this law lacks: 0."""
        return 0.0

    def _parts(self, N: ArrayLike, ln_D: Array) -> _Parts:
        ln_N = np.log(np.asarray(N, dtype=np.float64))
        exponents = (self.alpha, self.beta, self.gamma)
        first, second, third = (np.exp(power * ln_N) for power in exponents)
        slope = np.exp(self.a1 * first + self.b1)
        floor, data = self.a3 * third + self.b3, self.a2 * second + self.b2 - slope * ln_D
        return _Parts(np.asarray(floor), np.asarray(data), np.asarray(slope), (first, second, third))

    def log_excess(self, N: ArrayLike, D: ArrayLike) -> Array:
        """Return ln L."""
        floor, data, *_ = self._parts(N, np.log(np.asarray(D, dtype=np.float64)))
        return np.asarray(np.logaddexp(floor, data))

    def log_capacity_excess(self, N: ArrayLike) -> Array:
        """Return ln L(N, inf)."""
        return self._parts(N, np.zeros(()))[0]

    def loss(self, N: ArrayLike, D: ArrayLike) -> Array:
        """Return the held-out cross-entropy of ``N`` parameters trained on ``D`` tokens, nats/token."""
        return np.asarray(np.exp(self.log_excess(N, D)), dtype=np.float64)

    def derivatives(self, N: ArrayLike, D: ArrayLike) -> Derivatives:
        """Return the loss and its exact derivatives, by ln N, by ln D, and by each coefficient itself."""
        ln_N, ln_D = np.log(np.asarray(N, dtype=np.float64)), np.log(np.asarray(D, dtype=np.float64))
        parts = self._parts(N, ln_D)
        floor, data = np.broadcast_arrays(np.exp(parts.floor), np.exp(parts.data))
        by_slope = -data * parts.slope * ln_D  # by the logarithm of the exponent of tokens
        first, second, third = parts.powers
        own: Partials = {
            "a1": by_slope * first,
            "b1": by_slope,
            "alpha": by_slope * self.a1 * first * ln_N,
            "a2": data * second,
            "b2": data,
            "beta": data * self.a2 * second * ln_N,
            "a3": floor * third,
            "b3": floor,
            "gamma": floor * self.a3 * third * ln_N,
        }
        by_N = by_slope * self.a1 * first * self.alpha + data * self.a2 * second * self.beta
        by_N = by_N + floor * self.a3 * third * self.gamma
        inputs = {"N": by_N, "D": -data * parts.slope}
        return Derivatives(floor + data, inputs, own, {})

    def capacity_slopes(self, by: Array, N: ArrayLike) -> tuple[Array, Partials]:
        """Return ``by`` times the derivatives of ln L(N, inf) by ln N, and by each coefficient itself."""
        ln_N = np.log(np.asarray(N, dtype=np.float64))
        third = self._parts(N, np.zeros(())).powers[2]
        own = {"a3": by * third, "b3": by + 0.0 * third, "gamma": by * self.a3 * third * ln_N}
        return by * self.a3 * third * self.gamma, own
