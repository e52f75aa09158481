"""The over-training law of Gadre et al. 2024, in compute and tokens per parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from scaling.laws.derivatives import Array, Derivatives, Partials
from scaling.laws.supervised import SupervisedLaw

LN_6 = float(np.log(6.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class OverTrainingLaw:
    """L(C, M) = E + (a M^eta + b M^-eta) C^-eta, with C = 6 N D FLOPs and M = D/N tokens per parameter.

    Gadre et al. 2024, "Language models scale reliably with over-training and on downstream tasks" (arXiv
    2403.08540), Eq. 4: at any constant M the loss falls with compute at one rate. It is the special case of
    :class:`SupervisedLaw` with one exponent for parameters and tokens and gamma = 1::

        alpha = beta = 2 eta      A = a 6^-eta      B = b 6^-eta      gamma = 1

    The compute-optimal M, (b/a)^(1/(2 eta)), is thus the same at every compute.

    >>> from scaling.laws import OverTrainingLaw
    >>> law = OverTrainingLaw(E=1.8, a=200.0, b=350.0, eta=0.135)
    >>> float(law.loss(1e9, 20e9).round(4)), float(law.power_law().loss(1e9, 20e9).round(4))
    (2.8381, 2.8381)
    """

    E: float | Array
    a: float | Array
    b: float | Array
    eta: float | Array

    inputs: ClassVar[tuple[str, ...]] = ("N", "D")

    @classmethod
    def of(cls, law: SupervisedLaw) -> OverTrainingLaw:
        """Return this form of a power law with alpha = beta and gamma = 1; beta and gamma are not read."""
        eta = law.alpha / 2.0
        lift = np.exp(LN_6 * eta)
        return cls(E=law.E, a=law.A * lift, b=law.B * lift, eta=eta)

    def power_law(self) -> SupervisedLaw:
        """Return the same law in the coefficients of :class:`SupervisedLaw`."""
        scale = np.exp(-LN_6 * self.eta)
        slope = 2.0 * self.eta
        return SupervisedLaw(E=self.E, A=self.a * scale, B=self.b * scale, alpha=slope, beta=slope)

    def log_excess(self, N: ArrayLike, D: ArrayLike) -> Array:
        """Return ln(L - E)."""
        return self.power_law().log_excess(N, D)

    def log_capacity_excess(self, N: ArrayLike) -> Array:
        """Return ln(L(N, inf) - E)."""
        return self.power_law().log_capacity_excess(N)

    def loss(self, N: ArrayLike, D: ArrayLike) -> Array:
        """Return the held-out cross-entropy of ``N`` parameters trained on ``D`` tokens, nats/token."""
        return self.power_law().loss(N, D)

    def derivatives(self, N: ArrayLike, D: ArrayLike) -> Derivatives:
        """Return the loss and its exact derivatives with respect to every logarithm."""
        found = self.power_law().derivatives(N, D)
        return found._replace(own={"E": found.own["E"], **self._own(found.own)})

    def capacity_slopes(self, by: Array, N: ArrayLike) -> tuple[Array, Partials]:
        """Return ``by`` times the derivatives of ln(L(N, inf) - E) by ln N, and by ln(coefficient)."""
        by_N, own = self.power_law().capacity_slopes(by, N)
        return by_N, self._own({"B": np.zeros_like(by_N), "beta": np.zeros_like(by_N), **own})

    def _own(self, by: Partials) -> Partials:
        """Return derivatives by ln a, ln b and ln eta from those by the power law's coefficients."""
        by_eta = by["alpha"] + by["beta"] - LN_6 * self.eta * (by["A"] + by["B"])
        return {"a": by["A"], "b": by["B"], "eta": by_eta}
