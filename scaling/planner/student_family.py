"""A family of students that share one teacher and one budget.

The teacher is trained once. What is left is spread over the students so that another FLOP lowers the weighted
loss equally everywhere; the split that does so is the fixed point of spending in proportion to the weighted
returns, -dL/d ln(tokens), which diminish and so make the iteration contract.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.calibration.calibration import Calibration
from scaling.costs.scenarios import PRETRAINING, Scenario, cost, rates, teacher_is_free
from scaling.errors import InputError
from scaling.grid_search import minimize_on_grid
from scaling.planner.best_teacher import TeacherBox, best_teacher
from scaling.planner.evaluation import Candidate
from scaling.planner.optimizer import Setting
from scaling.planner.question import Question
from scaling.repeated_data import elasticity, repeated_tokens_value
from scaling.units import format_number

Array = NDArray[np.float64]

Shared = tuple[list[tuple[float, float]], list[Candidate], dict[str, float], list[str]]
"""Direct trainings, candidates, ways that stop short of a target (none), warnings."""

SIZE_LATTICE, SPLIT_LATTICE, ZOOMS = 32, 32, 3
SHARING_STEPS = 30


class _Shared(NamedTuple):
    """Teachers (P, K) and what they let the students (P, K, S) do."""

    params: Array
    tokens: Array
    teacher_loss: Array
    student_tokens: Array
    losses: Array
    weighted: Array


def share_teacher(question: Question, calibration: Calibration, setting: Setting) -> Shared:
    """Return direct training of every member, and the members distilled from the best common teachers."""
    sizes = np.array(question.family)
    weights = np.array(question.weights or np.ones(len(sizes)))
    weights = weights / weights.sum()
    budget = question.budget or 0.0
    step = setting.architecture.training_flops(sizes)
    if budget < step.sum():
        raise InputError(
            f"budget {budget:g} FLOPs is too small: one token for each student costs {step.sum():.3g}"
        )

    alone = _spread(setting, sizes, weights, step, np.array(budget), None)
    candidates: list[Candidate] = []
    warnings: list[str] = []
    for scenario in question.scenarios:
        under = replace(setting, bounds=question.bounds(calibration, scenario))
        found = _best(under, scenario, sizes, weights, budget)
        if not np.isfinite(found.weighted[0, 0]):
            warnings.append(f"{scenario.title}: nothing within the constraints fits the budget")
            continue
        for k, size in enumerate(sizes):
            candidates.append(
                Candidate(
                    name=f"{format_number(float(size))} student: {scenario.title}",
                    scenario=scenario.amortized(len(sizes)),
                    student_params=float(size),
                    student_tokens=float(found.student_tokens[0, 0, k]),
                    teacher_params=float(found.params[0, 0]),
                    teacher_tokens=float(found.tokens[0, 0]),
                    teacher_loss=float(found.teacher_loss[0, 0]),
                    teacher_is_trained=scenario.pretraining > 0,
                    direct_params=float(size),
                    direct_tokens=float(alone[k]),
                )
            )
    directs = [(float(size), float(tokens)) for size, tokens in zip(sizes, alone, strict=True)]
    return directs, candidates, {}, warnings


def _best(setting: Setting, scenario: Scenario, sizes: Array, weights: Array, budget: float) -> _Shared:
    """Return the common teacher of least weighted loss: its size is searched outside, its tokens inside.

    Where teachers are free, only those are looked at that are cheapest for their loss.
    """
    params, tokens = setting.bounds.teacher_params, setting.bounds.teacher_tokens

    def at(ln_N: Array, ln_D: Array) -> _Shared:
        return _shared(setting, scenario, sizes, weights, budget, np.exp(ln_N), np.exp(ln_D))

    def trained_for(ln_N: Array) -> Array:
        column = ln_N.reshape(-1, 1)
        ends = (np.full_like(column, np.log(end)) for end in tokens)
        best = minimize_on_grid(
            lambda ln_D: at(column, ln_D).weighted, *ends, first=SPLIT_LATTICE, zooms=ZOOMS
        )
        return best.reshape(ln_N.shape)

    def costing(ln_price: Array) -> _Shared:
        bounds = setting.bounds
        box = TeacherBox(params, tokens, bounds.teacher_unique_tokens, bounds.repetition)
        price = np.exp(ln_price)
        found = best_teacher(price, PRETRAINING, 0.0, box, setting.supervised, setting.architecture)
        return at(np.log(found.params), np.log(found.tokens))

    if teacher_is_free(scenario):
        prices = map(setting.architecture.training_flops, params, tokens)
        ends = (np.full((1, 1), np.log(price)) for price in prices)
        return costing(minimize_on_grid(lambda ln_price: costing(ln_price).weighted, *ends, zooms=ZOOMS))
    ends = (np.full((1, 1), np.log(end)) for end in params)
    size = minimize_on_grid(
        lambda ln_N: at(ln_N, trained_for(ln_N)).weighted, *ends, first=SIZE_LATTICE, zooms=ZOOMS
    )
    return at(size, trained_for(size))


def _shared(
    setting: Setting,
    scenario: Scenario,
    sizes: Array,
    weights: Array,
    budget: float,
    params: Array,
    tokens: Array,
) -> _Shared:
    """Return the students that this teacher lets be trained; their loss is inf where it costs too much."""
    params, tokens = np.broadcast_arrays(params, tokens)
    bounds, F = setting.bounds, setting.architecture.forward_flops
    taught = repeated_tokens_value(tokens, bounds.teacher_unique_tokens, bounds.repetition)
    L_T = np.maximum(setting.supervised.loss(params, taught), bounds.teacher_loss[0])
    F_T = F(params)[..., None]
    left = budget - cost(scenario, 0.0, 0.0, F_T[..., 0], tokens).teacher
    each = rates(scenario, F(sizes), F_T)
    rate = each.student + each.logits
    feasible = (left >= rate.sum(axis=-1)) & np.less_equal(L_T, bounds.teacher_loss[1])
    left = np.where(feasible, left, rate.sum(axis=-1))
    student_tokens = _spread(setting, sizes, weights, rate, left, L_T)
    seen = repeated_tokens_value(student_tokens, bounds.student_unique_tokens, bounds.repetition)
    assert setting.law is not None
    losses = setting.law.loss(sizes, seen, L_T[..., None], setting.supervised)
    weighted = np.where(feasible, losses @ weights, np.inf)
    return _Shared(params, tokens, L_T, student_tokens, losses, weighted)


def _spread(
    setting: Setting, sizes: Array, weights: Array, rate: Array, budget: Array, L_T: Array | None
) -> Array:
    """Return each student's tokens, (..., S), that spend ``budget``, (...), at ``rate``, FLOPs a token."""
    unique, constant = setting.bounds.student_unique_tokens, setting.bounds.repetition
    share = np.broadcast_to(weights, rate.shape)
    for _ in range(SHARING_STEPS):
        tokens = share * budget[..., None] / rate
        seen = repeated_tokens_value(tokens, unique, constant)
        if L_T is None:
            slope = setting.supervised.derivatives(sizes, seen).inputs["D"]
        else:
            assert setting.law is not None
            slope = setting.law.derivatives(sizes, seen, L_T[..., None], setting.supervised).inputs["D_S"]
        returns = np.maximum(-slope * elasticity(tokens, unique, constant) * weights, 1e-12)
        damping = 1 / (1 + tokens / (unique * constant))  # over epochs returns fall fast
        share = share ** (1 - damping) * (returns / returns.sum(axis=-1, keepdims=True)) ** damping
        share = share / share.sum(axis=-1, keepdims=True)
    return share * budget[..., None] / rate
