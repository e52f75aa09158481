"""Plan a distillation from a question and a calibration."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from scaling.calibration.calibration import DEFAULT_CALIBRATION, Calibration, as_calibration
from scaling.costs.flops_assumptions import accounting
from scaling.costs.scenarios import Scenario, scenario_title
from scaling.errors import InputError
from scaling.planner.candidates import Serving, Way
from scaling.planner.evaluation import Candidate, PlanBuilder
from scaling.planner.near_optimal import explore
from scaling.planner.plan import Interval, Plan
from scaling.planner.question import Question
from scaling.planner.sensitivity import assumption_effect
from scaling.planner.solve import Solution, setting_of, solve, solve_draws
from scaling.planner.student_family import share_teacher
from scaling.planner.uncertainty import interval
from scaling.units import format_power

NESTED_DRAWS = 50
"""Draws under which decisions are taken again where a size or a budget is searched for as well."""


def plan(question: Question, calibration: Calibration | str | Path = DEFAULT_CALIBRATION) -> Plan:
    """Plan a distillation: the best one under each scenario or with each known teacher, and direct training.

    Args:
        question: A student and a budget or a target.
        calibration: The fitted laws: a calibration, the path of its file, or the name of a published set.

    Returns:
        Every way with its losses, gains and probabilities. It prints and displays itself, and has
        ``to_frame()``, ``to_dict()`` and ``plot``.

    Raises:
        InputError: For a question that has no answer.

    >>> found = plan(Question(student_params=1e9, budget=1e21))
    >>> found.distillations[0].verdict
    'distil'
    """
    calibration = as_calibration(calibration)
    answer = _answer(question, calibration)
    architecture = question.counting(calibration)
    counted = accounting(architecture, calibration.architecture)
    effect = assumption_effect(
        question, architecture, counted, answer, lambda each: _answer(each, calibration, ranges=False)
    )
    return replace(answer, accounting=replace(counted, effect=effect))


def _answer(question: Question, calibration: Calibration, ranges: bool = True) -> Plan:
    """Return the plan without its accounting; the ``ranges`` of decisions take most of the time."""
    question.bounds(calibration)  # refuses a budget that is too small before anything else
    builder = PlanBuilder(question, calibration)
    if not calibration.distillation and (question.law or question.teachers or question.family):
        calibration.law(question.law)  # says why there is none
    if question.family:
        setting = setting_of([question], calibration)
        return builder.plan(*share_teacher(question, calibration, setting))
    found = solve(question, calibration)
    directs, unreachable = _directs(question, found)
    candidates, warnings = _candidates(found, unreachable)
    if unreachable and not directs and not candidates:
        raise InputError(_out_of_reach(question, unreachable))
    if not question.teachers:
        candidates = [_detailed(question, calibration, each, ranges) for each in candidates]
    answer = builder.plan(directs, candidates, unreachable, warnings)
    return answer.ranked() if question.teachers else answer


def _out_of_reach(question: Question, unreachable: dict[str, float]) -> str:
    floors = {scenario_title(name): floor for name, floor in unreachable.items()}
    ranked = sorted(floors.items(), key=lambda each: each[1])
    lowest = ", ".join(f"{floor:.3f} ({name})" for name, floor in ranked)
    return f"target_loss: {question.target_loss:g} nats/token cannot be reached; lowest: {lowest}"


def _directs(question: Question, found: Solution) -> tuple[list[tuple[float, float]], dict[str, float]]:
    """Return parameters and tokens of direct training if it can do what is asked, else where it stops."""
    params, tokens, spent, loss = (float(values[0]) for values in found.direct)
    if math.isinf(spent):
        return [], {"direct training": loss}
    if not math.isfinite(loss):
        raise InputError(
            f"budget {format_power(question.budget or 0.0)} FLOPs is too small to train and serve the student"
        )
    return [(params, tokens)], {}


def _candidates(found: Solution, unreachable: dict[str, float]) -> tuple[list[Candidate], list[str]]:
    """Return the ways that can do what is asked, and warnings of others; add those that miss the target."""
    candidates: list[Candidate] = []
    if found.optima is None or found.spent is None or found.equal_compute is None:
        return candidates, []
    warnings = list(found.warnings)
    for k, way in enumerate(found.ways):
        *decided, loss = (float(values[k, 0]) for values in found.optima)
        if not math.isfinite(found.spent[k, 0]):
            unreachable[way.name] = loss
        elif math.isfinite(loss):
            beside = (float(values[k, 0]) for values in found.equal_compute)
            candidates.append(_candidate(way, *decided, *beside))
        else:
            warnings.append(f"{scenario_title(way.name)}: nothing within the constraints fits the budget")
    return candidates, warnings


def _candidate(
    way: Way, N_S: float, D_S: float, N_T: float, D_T: float, L_T: float, direct_N: float, direct_D: float
) -> Candidate:
    return Candidate(
        name=way.name,
        scenario=way.scenario,
        student_params=N_S,
        student_tokens=D_S,
        teacher_params=N_T,
        teacher_tokens=D_T,
        teacher_loss=L_T,
        teacher_is_trained=way.teacher_is_trained,
        direct_params=direct_N,
        direct_tokens=direct_D,
        dollars=None if way.price is None else way.price * D_S / 1e6,
        forward_flops=way.forward_flops,
    )


def _detailed(question: Question, calibration: Calibration, candidate: Candidate, ranges: bool) -> Candidate:
    """Return the candidate with the ranges of its decisions and, if asked for, what is nearly as good."""
    if ranges:
        candidate = replace(candidate, ranges=_ranges(question, calibration, candidate.scenario))
    if question.tolerance is None or question.student_params is None or question.budget is None:
        return candidate
    serving = Serving(setting_of([question], calibration, [candidate.scenario]), question.lifetime_tokens)
    near = explore(serving, candidate, question.budget, question.tolerance)
    return replace(candidate, near=near)


def _ranges(question: Question, calibration: Calibration, scenario: Scenario) -> dict[str, Interval]:
    """Return, by variable, 90 % of the decisions that would be optimal if a draw were the truth."""
    low, high = question.sizes(calibration)
    free, towards = low < high, question.target_loss is not None
    if not calibration.draw_count or (free and towards):
        return {}
    step = calibration.draw_step(NESTED_DRAWS) if free or towards else 1
    optima, spent = solve_draws(question, calibration, scenario, step)
    if not np.all(np.isfinite(spent)) or not np.all(np.isfinite(optima.loss)):
        return {}
    found = {name: interval(getattr(optima, name)) for name in optima._fields}
    return found | ({"flops": interval(spent)} if towards else {})
