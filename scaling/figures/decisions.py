"""Compute-optimal decisions of students over budgets, and those that draws would take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scaling.calibration.calibration import Calibration
from scaling.costs.scenarios import Scenario, cost
from scaling.figures.chart import Array, Mask
from scaling.figures.law_inputs import LawInputs, near_runs, within
from scaling.planner.optimizer import Optima
from scaling.planner.question import Question
from scaling.planner.solve import solve, solve_draws

PARTS = ("student training", "teacher logits", "teacher training")
BAND_DRAWS = 100
"""Draws under which decisions are taken again for a band."""


class OptimaOverBudgets(NamedTuple):
    """Optima of one student at C budgets, and direct training beside them."""

    optima: Optima
    """Arrays of shape (C,)."""
    direct: Array
    """Loss of direct training on the whole budget, (C,), nats/token."""
    shares: Array
    """Shares of the compute, by ``PARTS``, (C, 3)."""
    known: Mask
    """True where the fitted runs are near, (C,)."""


def decide(
    calibration: Calibration,
    scenario: Scenario,
    student_params: float,
    budgets: Sequence[float] | Array,
    law: str | None = None,
) -> OptimaOverBudgets:
    """Return the optimum of a student at every budget, FLOPs.

    As in the paper, a teacher that exists may lie outside the fitted runs.
    """
    question = _question(scenario, student_params, float(budgets[-1]), law)
    found = solve(question, calibration, list(map(float, budgets)))
    assert found.optima is not None
    optima = Optima(*(values[0] for values in found.optima))
    at, unknown = LawInputs(*optima[:5]), np.array(np.nan)
    reach = LawInputs(found.direct.params, found.direct.tokens, unknown, unknown, unknown)
    known = near_runs(calibration, at) & near_runs(calibration, reach)
    if scenario.pretraining:
        known &= within(calibration.region, "params", at.teacher_params)
        known &= within(calibration.region, "tokens", at.teacher_tokens)
    return OptimaOverBudgets(optima, found.direct.loss, _shares(calibration, scenario, optima), known)


def redecided(
    calibration: Calibration, scenario: Scenario, student_params: float, budget: float, law: str | None = None
) -> tuple[Optima, Array]:
    """Return the optima if a draw were the truth, (draws,), and their shares of the compute, (draws, 3)."""
    question = _question(scenario, student_params, budget, law)
    found, _ = solve_draws(question, calibration, scenario, calibration.draw_step(BAND_DRAWS))
    return found, _shares(calibration, scenario, found)


def _question(scenario: Scenario, student_params: float, budget: float, law: str | None) -> Question:
    return Question(
        student_params=student_params, budget=budget, scenarios=(scenario,), law=law, extrapolate=True
    )


def _shares(calibration: Calibration, scenario: Scenario, found: Optima) -> Array:
    F = calibration.architecture.forward_flops
    spent = cost(
        scenario, F(found.student_params), found.student_tokens, F(found.teacher_params), found.teacher_tokens
    )
    parts = np.stack(spent, axis=-1)
    return np.asarray(parts / parts.sum(axis=-1, keepdims=True))
