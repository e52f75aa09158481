"""The supervised law: the loss of a model trained directly on data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.derivatives import Array, Derivatives, Partials


class AnySupervisedLaw(Protocol):
    """Interface of a supervised law, as distillation laws, the planner and the fit use it.

    A law is a frozen dataclass of its coefficients. The one of least change is :class:`SupervisedLaw`.
    """

    inputs: ClassVar[tuple[str, ...]] = ("N", "D")

    @property
    def E(self) -> Any:  # noqa: N802
        """Irreducible loss, nats/token: a float or an array; 0 of a law without one."""
        ...

    def loss(self, N: ArrayLike, D: ArrayLike) -> Array:
        """Return the held-out cross-entropy, nats/token."""
        ...

    def derivatives(self, N: ArrayLike, D: ArrayLike) -> Derivatives:
        """Return the loss and its derivatives with respect to every logarithm.

        Of coefficients of either sign, those named in ``signed`` of the law, with respect to themselves.
        """
        ...

    def log_excess(self, N: ArrayLike, D: ArrayLike) -> Array:
        """Return ln(L - E)."""
        ...

    def log_capacity_excess(self, N: ArrayLike) -> Array:
        """Return ln(L(N, inf) - E)."""
        ...

    def capacity_slopes(self, by: Array, N: ArrayLike) -> tuple[Array, Partials]:
        """Return ``by`` times the derivatives of ln(L(N, inf) - E) by ln N, and by ln(coefficient)."""
        ...


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

    def _terms(self, ln_N: Array, ln_D: Array) -> tuple[Array, Array, Array]:
        """Return ln(A/N^alpha), ln(B/D^beta) and the logarithm of their sum."""
        capacity = np.log(self.A) - self.alpha * ln_N
        data = np.log(self.B) - self.beta * ln_D
        return capacity, data, np.logaddexp(capacity, data)

    def log_excess(self, N: ArrayLike, D: ArrayLike) -> Array:
        """Return ln(L - E), the logarithm of the part of the loss that scale can remove."""
        *_, ln_sum = self._terms(np.log(N), np.log(D))
        return np.asarray(self.gamma * ln_sum, dtype=np.float64)

    def log_capacity_excess(self, N: ArrayLike) -> Array:
        """Return ln(L(N, inf) - E), the logarithm of the part that more tokens cannot remove."""
        return np.asarray(self.gamma * (np.log(self.A) - self.alpha * np.log(N)), dtype=np.float64)

    def loss(self, N: ArrayLike, D: ArrayLike) -> Array:
        """Return the held-out cross-entropy of a model.

        Args:
            N: Non-embedding parameters.
            D: Training tokens; broadcasts against ``N`` and against the coefficients.

        Returns:
            The loss in nats/token, in the broadcast shape.

        >>> law = SupervisedLaw(E=1.8, A=300.0, B=2000.0, alpha=0.35, beta=0.37)
        >>> float(law.loss(1e9, 20e9).round(4))
        2.3212
        """
        return np.asarray(self.E + np.exp(self.log_excess(N, D)), dtype=np.float64)

    def derivatives(self, N: ArrayLike, D: ArrayLike) -> Derivatives:
        """Return the loss and its exact derivatives with respect to every logarithm."""
        ln_N, ln_D = np.log(N), np.log(D)
        capacity, data, ln_sum = self._terms(ln_N, ln_D)
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

    def capacity_slopes(self, by: Array, N: ArrayLike) -> tuple[Array, Partials]:
        """Return ``by`` times the derivatives of ln(L(N, inf) - E) by ln N, and by ln(coefficient)."""
        by_slope = by * self.gamma * self.alpha
        own = {
            "A": by * self.gamma,
            "alpha": -(by_slope * np.log(N)),
            "gamma": by * self.log_capacity_excess(N),
        }
        return -by_slope, own
