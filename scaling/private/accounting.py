"""Privacy accounting in zero-concentrated differential privacy (zCDP), and budgets of (epsilon, delta)-DP.

Costs are worst-case: they depend on the noise alone, never on votes. The zCDP of a Gaussian mechanism is
D^2 / (2 sigma^2) for L2 sensitivity D; costs add up, also where each is chosen by what was released before
(Bun and Steinke 2016, Propositions 1.6 and 1.7; Feldman and Zrnic 2021 for budgets).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scaling.errors import InputError

ROUNDING = 1e-12
"""Share of a budget that the sum of its costs may exceed it by, for rounding."""


def epsilon_of(rho: float, delta: float) -> float:
    """Return epsilon of (epsilon, delta)-DP that rho-zCDP implies (Bun and Steinke 2016, Proposition 1.3).

    >>> round(epsilon_of(1000 / 100**2, 1e-5), 4)
    2.246
    """
    return rho + 2 * math.sqrt(rho * -math.log(delta)) if math.isfinite(rho) else math.inf


def rho_of(epsilon: float, delta: float) -> float:
    """Return the largest rho whose :func:`epsilon_of` is ``epsilon``.

    >>> round(rho_of(4, 1e-5), 5)
    0.29765
    """
    if not math.isfinite(epsilon):
        return math.inf
    log = -math.log(delta)
    return (epsilon / (math.sqrt(log + epsilon) + math.sqrt(log))) ** 2


@dataclass(frozen=True, slots=True)
class AttemptCost:
    """Cost in zCDP of one attempt to release a token."""

    test: float
    """Paid by every attempt, refused ones and retries included."""
    answer: float
    """Paid besides where the test passed, for an answer is then computed."""

    @property
    def whole(self) -> float:
        """Cost of an attempt that is answered."""
        return self.test + self.answer


@dataclass(frozen=True, slots=True)
class PrivacyBudget:
    """Allowance of (epsilon, delta)-DP; an infinite epsilon is none."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise InputError(
                f"epsilon: {self.epsilon:g} allows no release; give a positive number, or infinite with a "
                "threshold"
            )
        if not 0 < self.delta < 1:
            raise InputError(f"delta: {self.delta:g} is no probability of failure; give one such as 1e-5")

    @property
    def rho(self) -> float:
        """Allowance in zCDP."""
        return rho_of(self.epsilon, self.delta)

    def queries(self, cost: AttemptCost) -> float:
        """Return how many attempts it affords if all are answered.

        >>> PrivacyBudget(4, 1e-5).queries(AttemptCost(test=0.5 / 64**2, answer=1 / 64**2))
        812.0
        """
        if math.isinf(self.rho):
            return math.inf
        return float(math.floor(self.rho / cost.whole * (1 + ROUNDING)))


def check_delta(delta: float, teachers: int) -> None:
    """Raise InputError for a probability of failure at which a shard may be published."""
    if delta > 1 / teachers:
        raise InputError(
            f"delta: {delta:g} is above 1/n = {1 / teachers:g} for {teachers:,} teachers, and would allow "
            f"publishing a shard; give {min(1e-5, 0.1 / teachers):g}, or less than 1/n"
        )
