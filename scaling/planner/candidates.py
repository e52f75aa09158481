"""Two sources of a teacher: chosen freely under each scenario, or one of a catalogue.

Both answer the same question for students of any size on any budget: how low does the loss get, and by which
decisions? A row is a scenario at a budget, a draw, or a teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scaling.calibration.calibration import Calibration
from scaling.costs.scenarios import INFERENCE, SCENARIOS, Scenario, rates
from scaling.grid_search import minimize_on_grid
from scaling.planner.optimizer import EXACT, Effort, Optima, Problems, Setting, direct, optimize
from scaling.planner.question import Question
from scaling.planner.teacher_catalogue import (
    KnownTeacher,
    check_teacher_loss,
    mixture_warnings,
    with_vocabulary,
)
from scaling.repeated_data import repeated_tokens_value

Array = NDArray[np.float64]

TOKEN_LATTICE, TOKEN_ZOOMS = 24, 3
NO_TRAINING = 1e-6
"""FLOPs left for training where serving costs more than the budget: too few for a token."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to distil that is compared: a scenario, or a known teacher."""

    name: str
    scenario: Scenario
    teacher_is_trained: bool
    """True if the teacher's loss is predicted from its size and tokens."""
    price: float | None = None
    """US dollars for the logits of a million tokens, where somebody else serves the teacher."""
    forward_flops: float | None = None
    """FLOPs of the teacher's forward pass over one token, where they do not follow from its size."""

    @classmethod
    def under(cls, scenario: Scenario) -> Way:
        """Return the way of a scenario."""
        return cls(scenario.name, scenario, scenario.pretraining > 0)


class TeacherSource(Protocol):
    """Source of teachers; its rows are way after way, budget by budget."""

    @property
    def ways(self) -> Sequence[Way]:
        """Ways to distil that are compared."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """Teachers that were left out, in sentences."""
        ...

    def optima(self, params: Array, budget: Array) -> Optima:
        """Return the best decisions for students of ``params`` on ``budget``, (P, K) each, in that shape."""
        ...


@dataclass(frozen=True, slots=True)
class Serving:
    """A setting whose budget also pays for the tokens that the student will serve."""

    setting: Setting
    lifetime_tokens: float

    def training_budget(self, params: Array, budget: Array) -> Array:
        """Return the FLOPs that serving leaves for training."""
        if self.lifetime_tokens == 0:
            return budget
        served = self.setting.architecture.forward_flops(params) * self.lifetime_tokens
        return np.maximum(budget - served, NO_TRAINING)

    def direct_loss(self, params: Array, budget: Array) -> Array:
        """Return the loss of direct training, inf where the budget pays for no token."""
        tokens, loss = direct(self.setting, params, self.training_budget(params, budget))
        return np.where(tokens >= 1, loss, np.inf)

    def direct_tokens(self, params: Array, budget: Array) -> Array:
        """Return the tokens of direct training."""
        return direct(self.setting, params, self.training_budget(params, budget))[0]


@dataclass(frozen=True, slots=True)
class ChosenTeachers:
    """A teacher chosen freely under each scenario.

    Where coefficients or bounds of the setting differ between rows, they have shape (P, 1).
    """

    serving: Serving
    rows: Sequence[Scenario]
    """The scenario of every row."""
    scenarios: Sequence[Scenario]
    """The scenarios that are compared."""
    effort: Effort = EXACT
    warnings: tuple[str, ...] = ()

    @property
    def ways(self) -> list[Way]:
        """One way a scenario."""
        return [Way.under(scenario) for scenario in self.scenarios]

    def optima(self, params: Array, budget: Array) -> Optima:
        """See :class:`TeacherSource`."""
        shape = params.shape
        shares = np.array([[scenario.logits, scenario.pretraining] for scenario in self.rows])
        logits, pretraining = (np.broadcast_to(share[:, None], shape) for share in shares.T)
        left = self.serving.training_budget(params, budget)
        problems = Problems.of(params, left, logits, pretraining)
        found = optimize(self.serving.setting.repeated(shape[1]), problems, self.effort)
        return Optima(*(values.reshape(shape) for values in found))


@dataclass(frozen=True, slots=True)
class CatalogueTeachers:
    """Each teacher of a catalogue, whose logits are charged as in the scenario.

    Logits that are bought count as the FLOPs that the same money buys.
    """

    serving: Serving
    teachers: Sequence[KnownTeacher]
    scenario: Scenario
    flops_per_dollar: float = 0.0
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, serving: Serving, calibration: Calibration, question: Question) -> CatalogueTeachers:
        """Return those of the question's teachers that the student can follow.

        Raises:
            InputError: For a loss that text like the calibration's does not allow, or if no teacher has the
                student's vocabulary.
        """
        asked = question.scenarios
        logits = asked[0] if len(asked) == 1 else INFERENCE
        teachers, warnings = with_vocabulary(question.teachers, serving.setting.architecture.vocab)
        for teacher in teachers:
            if teacher.loss is not None:
                check_teacher_loss(calibration, teacher.loss, f"teacher {teacher.name}")
        scenario = Scenario("known_teacher", logits.logits, 0.0)
        remarks = (*warnings, *mixture_warnings(teachers), *_uncharged(asked))
        return cls(serving, teachers, scenario, question.flops_per_dollar, remarks)

    @property
    def ways(self) -> list[Way]:
        """One way a teacher."""
        return [
            Way(
                name=teacher.name,
                scenario=self.scenario,
                teacher_is_trained=teacher.loss is None,
                price=teacher.dollars_per_million_tokens,
                forward_flops=teacher.logit_flops(self.serving.setting.architecture),
            )
            for teacher in self.teachers
        ]

    def losses(self) -> Array:
        """Return the teachers' losses, (P, 1), nats/token: measured where known, predicted otherwise."""
        setting = self.serving.setting
        unique, constant = setting.bounds.teacher_unique_tokens, setting.bounds.repetition
        return np.array(
            [
                [
                    teacher.loss
                    if teacher.loss is not None
                    else setting.supervised.loss(
                        teacher.params, repeated_tokens_value(teacher.tokens or 1.0, unique, constant)
                    )
                ]
                for teacher in self.teachers
            ],
            dtype=np.float64,
        )

    def logit_flops(self) -> Array:
        """Return the FLOPs charged for the logits of one token, shape (P, 1)."""
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
        """See :class:`TeacherSource`. Tokens are searched for: more may hurt where the teacher is weak."""
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
            tokens = np.exp(ln_tokens)
            seen = repeated_tokens_value(tokens, bounds.student_unique_tokens, bounds.repetition)
            assert setting.law is not None
            return setting.law.loss(N, seen, L_T, setting.supervised)

        top = np.log(ceiling.reshape(-1, 1))
        bottom = np.maximum(np.log(fewest), top - np.log(1e3))
        best = minimize_on_grid(loss, bottom, top, first=TOKEN_LATTICE, zooms=TOKEN_ZOOMS)
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


def _uncharged(asked: Sequence[Scenario]) -> list[str]:
    """Return what scenarios would charge, but teachers that exist do not."""
    if len(asked) == 1 and asked[0].pretraining > 0:
        return [f"{asked[0].title}: a teacher that exists is trained already, so no training is charged"]
    if len(asked) > 1 and set(asked) != set(SCENARIOS.values()):
        return [f"teachers that exist are compared under one scenario, here {INFERENCE.title}; ask for one"]
    return []
