"""Privacy accounting in zero-concentrated differential privacy, and the ledger that stops at the budget.

Costs are worst-case: they depend on the noise alone, never on votes. The zCDP of a Gaussian mechanism is
D^2 / (2 sigma^2) for L2 sensitivity D; costs add up, also where each is chosen by what was released before
(Bun and Steinke 2016, Propositions 1.6 and 1.7; Feldman and Zrnic 2021 for budgets).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

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


class BudgetSpent(Exception):
    """Raised where the next attempt would exceed the budget, before anything is looked at."""


@dataclass(kw_only=True)
class Ledger:
    """Account of a release; every attempt is charged before its votes are counted.

    An attempt is charged whole. Where its test refuses, no answer is computed and the answer's price is
    given back; the test's never is.
    """

    budget: PrivacyBudget
    cost: AttemptCost
    max_attempts: float = math.inf
    attempts: int = 0
    """Attempts charged."""
    answers: int = 0
    """Attempts whose answer is charged."""
    pending: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        if math.isinf(self.budget.rho) and math.isinf(self.max_attempts):
            raise InputError("queries: nothing ends a release without a budget; say how many queries to make")

    @property
    def rho(self) -> float:
        """Cost so far in zCDP."""
        return _times(self.attempts, self.cost.test) + _times(self.answers, self.cost.answer)

    @property
    def epsilon(self) -> float:
        """Epsilon so far, at the budget's delta."""
        return epsilon_of(self.rho, self.budget.delta)

    @property
    def refusals(self) -> int:
        """Attempts without an answer."""
        return self.attempts - self.answers

    @property
    def affords_another(self) -> bool:
        """True if one more attempt, answered, stays within the budget."""
        after = _times(self.attempts + 1, self.cost.test) + _times(self.answers + 1, self.cost.answer)
        return self.attempts < self.max_attempts and after <= self.budget.rho * (1 + ROUNDING)

    def charge(self) -> int:
        """Charge the next attempt whole; return its number, from 0.

        Raises:
            BudgetSpent: If the budget does not afford it.
        """
        if not self.affords_another:
            raise BudgetSpent(
                f"{self.attempts} queries were made, and another would exceed epsilon = "
                f"{self.budget.epsilon:g} at delta = {self.budget.delta:g}, or the queries asked for"
            )
        self.attempts += 1
        self.answers += 1
        self.pending = True
        return self.attempts - 1

    def refuse(self) -> None:
        """Give the answer's price back: the test of the attempt just charged did not pass."""
        assert self.pending, "no attempt is under way"
        self.answers -= 1
        self.pending = False


def _times(count: int, cost: float) -> float:
    return count * cost if count else 0.0
