"""The two sources of a teacher: one chosen freely under a scenario, or one of a catalogue.

Both answer the same questions for students of any size on any budget: how low does the loss get, and by
which decisions? A row is a scenario or a teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scaling.costs.scenarios import Scenario, rates
from scaling.grid_search import minimise
from scaling.planner.optimizer import QUICK, Optima, Problems, Setting, direct, solve
from scaling.planner.teacher_catalogue import KnownTeacher
from scaling.repeated_data import effective_tokens

Array = NDArray[np.float64]

TOKEN_LATTICE, TOKEN_ZOOMS = 24, 3
NO_TRAINING = 1e-6
"""FLOPs left for training where serving costs more than the budget: too few for a token."""


class Ways(Protocol):
    """Ways to distil, one a row."""

    @property
    def rows(self) -> int:
        """How many ways there are."""
        ...

    def optima(self, params: Array, budget: Array) -> Optima:
        """The best decisions for students of ``params`` on ``budget``, (P, K) each, in that shape."""
        ...


@dataclass(frozen=True, slots=True)
class Serving:
    """Ways whose budget also pays for the tokens that the student will serve."""

    setting: Setting
    lifetime_tokens: float

    def training_budget(self, params: Array, budget: Array) -> Array:
        """What serving leaves for training, FLOPs."""
        if self.lifetime_tokens == 0:
            return budget
        served = self.setting.architecture.forward_flops(params) * self.lifetime_tokens
        return np.maximum(budget - served, NO_TRAINING)

    def direct_loss(self, params: Array, budget: Array) -> Array:
        """Loss of direct training, inf where the budget pays for no token."""
        tokens, loss = direct(self.setting, params, self.training_budget(params, budget))
        return np.where(tokens >= 1, loss, np.inf)

    def direct_tokens(self, params: float, budget: float) -> float:
        """Tokens of direct training."""
        left = self.training_budget(np.array(params), np.array(budget))
        return float(direct(self.setting, params, left)[0])


@dataclass(frozen=True, slots=True)
class ScenarioWays:
    """A teacher chosen freely under each scenario."""

    serving: Serving
    scenarios: Sequence[Scenario]

    @property
    def rows(self) -> int:
        """One per scenario."""
        return len(self.scenarios)

    def optima(self, params: Array, budget: Array) -> Optima:
        """See :class:`Ways`."""
        shape = params.shape
        shares = np.array([[scenario.logits, scenario.pretraining] for scenario in self.scenarios])
        logits, pretraining = (np.broadcast_to(share[:, None], shape) for share in shares.T)
        left = self.serving.training_budget(params, budget)
        problems = Problems.of(params, left, logits, pretraining)
        found = solve(self.serving.setting.repeated(shape[1]), problems)
        return Optima(*(values.reshape(shape) for values in found))


@dataclass(frozen=True, slots=True)
class DrawnWays:
    """A teacher chosen freely under one scenario, if a draw were the truth; a row is a draw.

    The coefficients of the serving's setting have shape (draws, 1).
    """

    serving: Serving
    scenario: Scenario
    rows: int

    def optima(self, params: Array, budget: Array) -> Optima:
        """See :class:`Ways`."""
        shape = params.shape
        left = self.serving.training_budget(params, budget)
        problems = Problems.of(params, left, self.scenario.logits, self.scenario.pretraining)
        found = solve(self.serving.setting.repeated(shape[1]), problems, QUICK)
        return Optima(*(values.reshape(shape) for values in found))


@dataclass(frozen=True, slots=True)
class TeacherWays:
    """Each teacher of a catalogue, whose logits are charged as in the scenario.

    Logits that are bought count as the FLOPs that the same money buys.
    """

    serving: Serving
    teachers: Sequence[KnownTeacher]
    scenario: Scenario
    flops_per_dollar: float = 0.0

    @property
    def rows(self) -> int:
        """One per teacher."""
        return len(self.teachers)

    def losses(self) -> Array:
        """The teachers' losses, shape (P, 1), nats/token: measured where known, predicted otherwise."""
        setting = self.serving.setting
        unique = setting.bounds.teacher_unique_tokens
        return np.array(
            [
                [
                    teacher.loss
                    if teacher.loss is not None
                    else setting.supervised.loss(
                        teacher.params, effective_tokens(teacher.tokens or 1.0, unique)
                    )
                ]
                for teacher in self.teachers
            ],
            dtype=np.float64,
        )

    def logit_flops(self) -> Array:
        """FLOPs charged for the logits of one token, shape (P, 1)."""
        architecture = self.serving.setting.architecture
        charged = rates(self.scenario, 0.0, [each.logit_flops(architecture) for each in self.teachers]).logits
        prices = [teacher.dollars_per_million_tokens for teacher in self.teachers]
        return np.array(
            [
                [flops if price is None else price / 1e6 * self.flops_per_dollar]
                for flops, price in zip(charged, prices, strict=True)
            ]
        )

    def optima(self, params: Array, budget: Array) -> Optima:
        """See :class:`Ways`. More tokens may hurt where the teacher is weak, so they are searched for."""
        setting = self.serving.setting
        bounds = setting.bounds
        size = np.array([[teacher.params] for teacher in self.teachers])
        rate = setting.architecture.training_flops(params) + self.logit_flops()
        fewest, most = bounds.student_tokens
        ceiling = np.minimum(self.serving.training_budget(params, budget) / rate, most)
        feasible = ceiling >= fewest * (1 - 1e-9)
        ceiling = np.maximum(ceiling, fewest)
        shape = ceiling.shape
        N = np.broadcast_to(params, shape).reshape(-1, 1)
        L_T = np.broadcast_to(self.losses(), shape).reshape(-1, 1)

        def loss(ln_tokens: Array) -> Array:
            seen = effective_tokens(np.exp(ln_tokens), bounds.student_unique_tokens)
            assert setting.law is not None
            return setting.law.loss(N, seen, L_T, setting.supervised)

        top = np.log(ceiling.reshape(-1, 1))
        bottom = np.maximum(np.log(fewest), top - np.log(1e3))
        best = minimise(loss, bottom, top, first=TOKEN_LATTICE, zooms=TOKEN_ZOOMS)
        found = loss(best).reshape(shape)
        tokens = np.array([[teacher.tokens or np.nan] for teacher in self.teachers])
        return Optima(
            np.broadcast_to(params, shape),
            np.exp(best).reshape(shape),
            np.broadcast_to(size, shape),
            np.broadcast_to(tokens, shape),
            L_T.reshape(shape),
            np.where(feasible, found, np.inf),
        )
