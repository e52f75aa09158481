"""Compute-optimal decisions for many students and budgets, and those that draws would take."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from scaling.calibration.calibration import Calibration
from scaling.costs.scenarios import Scenario, cost
from scaling.figures.chart import Array, Mask
from scaling.figures.law_inputs import Place, near_runs, within
from scaling.planner.optimizer import QUICK, Bounds, Optima, Problems, Setting, direct, solve, stacked
from scaling.planner.question import Question

PARTS = ("student training", "teacher logits", "teacher training")
BAND_DRAWS = 100
"""Draws under which decisions are taken again for a band."""


class Decisions(NamedTuple):
    """Optima at sizes and budgets, and direct training beside them; arrays of one shape."""

    optima: Optima
    direct: Array
    """Loss of direct training on the whole budget, nats/token."""
    shares: Array
    """(..., 3): of the compute, by ``PARTS``."""
    known: Mask
    """Whether the fitted runs are near."""


def decide(
    calibration: Calibration, scenario: Scenario, params: Array, budget: Array, law: str | None = None
) -> Decisions:
    """The optimum of every student, ``params`` and ``budget`` of shape (P,)."""
    bounds = _bounds(calibration, params, budget)
    setting = _setting(calibration, bounds, law)
    found = solve(setting, Problems.of(params, budget, scenario.logits, scenario.pretraining))
    at = Place(*found[:5])
    alone = direct(replace(setting, bounds=Bounds()), params, budget)
    reach = Place(params, alone[0], np.array(np.nan), np.array(np.nan), np.array(np.nan))
    known = near_runs(calibration, at) & near_runs(calibration, reach)
    if scenario.pretraining:
        known &= within(calibration.region, "params", at.teacher_params)
        known &= within(calibration.region, "tokens", at.teacher_tokens)
    return Decisions(found, alone[1], _shares(calibration, scenario, found), known)


def redecided(
    calibration: Calibration, scenario: Scenario, params: float, budget: float, law: str | None = None
) -> tuple[Optima, Array]:
    """What would be optimal if a draw were the truth, (draws,), and its shares, (draws, 3)."""
    setting = drawn_setting(calibration, _bounds(calibration, np.array([params]), np.array([budget])), law)
    count = np.size(setting.supervised.E)
    problems = Problems.of(np.full(count, params), budget, scenario.logits, scenario.pretraining)
    found = solve(setting, problems, QUICK)
    return found, _shares(calibration, scenario, found)


def drawn_setting(calibration: Calibration, bounds: Bounds, law: str | None) -> Setting:
    """The laws under the draws of a band, their coefficients of shape (draws, 1)."""
    return replace(
        _setting(calibration, bounds, law),
        supervised=calibration.sampled_supervised(),
        law=calibration.sampled_law(law),
    ).rows(slice(None, None, max(1, calibration.draw_count // BAND_DRAWS)))


def _setting(calibration: Calibration, bounds: Bounds, law: str | None) -> Setting:
    return Setting(
        supervised=calibration.supervised,
        law=calibration.law(law),
        architecture=calibration.architecture,
        bounds=bounds,
    )


def _bounds(calibration: Calibration, params: Array, budget: Array) -> Bounds:
    """The planner's bounds of every problem, (P, 1); as in the paper, no teacher is kept to the runs."""
    return stacked(
        [
            Question(student_params=float(N), budget=float(C)).bounds(calibration)
            for N, C in zip(params, budget, strict=True)
        ]
    )


def _shares(calibration: Calibration, scenario: Scenario, found: Optima) -> Array:
    F = calibration.architecture.forward_flops
    spent = cost(
        scenario, F(found.student_params), found.student_tokens, F(found.teacher_params), found.teacher_tokens
    )
    parts = np.stack(spent, axis=-1)
    return np.asarray(parts / parts.sum(axis=-1, keepdims=True))
