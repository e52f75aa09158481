"""Ledger of a release, which stops at its budget; :mod:`scaling.private.accounting` has the prices."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from scaling.errors import InputError
from scaling.private.accounting import ROUNDING, AttemptCost, PrivacyBudget, epsilon_of


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
