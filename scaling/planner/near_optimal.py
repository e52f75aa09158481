"""Near-optimal plans: ranges of decisions, the cheapest point, real architectures."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.costs.flops import Architecture, ModelShape
from scaling.planner.candidates import ChosenTeachers, Serving
from scaling.planner.evaluation import Candidate
from scaling.planner.optimizer import Bounds, Optima, Problems, optimize
from scaling.planner.plan import NearOptimal
from scaling.planner.solve import choose

Array = NDArray[np.float64]
PROFILE = np.geomspace(1e-3, 1e3, 301)
"""Multiples of the optimal value at which a variable is held while the others are chosen anew."""
LARGEST_LADDER = 256
"""Layers of the largest rung."""


def explore(serving: Serving, best: Candidate, budget: float, tolerance: float) -> NearOptimal:
    """Return what lies within ``tolerance`` nats/token of the best distillation on ``budget``."""
    setting = serving.setting
    goal = float(_optimum(serving, best, budget, setting.bounds).loss[0]) + tolerance
    ranges = {}
    for name in ("teacher_params", "teacher_tokens", "student_tokens"):
        low, high = getattr(setting.bounds, name)
        values = np.unique(np.clip(getattr(best, name) * PROFILE, low, high))
        held = _optimum(serving, best, budget, _held(setting.bounds, name, values))
        within = values[held.loss <= goal]
        if len(within):
            ranges[name] = (float(within[0]), float(within[-1]))
    one = ChosenTeachers(serving, [best.scenario], [best.scenario])
    size = (best.student_params, best.student_params)
    _, cheapest = choose(lambda N, C: one.optima(N, C).loss, 1, size, None, goal)
    return NearOptimal(
        tolerance=tolerance,
        ranges=ranges,
        cheapest_flops=float(cheapest[0, 0]),
        ladder=_ladder(serving, best, budget, goal),
    )


def ladder(architecture: Architecture, low: float, high: float) -> list[ModelShape]:
    """Return the real architectures of this family between two sizes, one per number of layers."""
    shapes = []
    for layers in range(1, LARGEST_LADDER + 1):
        width = round(architecture.aspect_ratio * layers)
        step = math.gcd(width, 128)
        shape = architecture.shape(layers, head_dim=step, ffn_multiple=step)
        if low <= shape.params <= high:
            shapes.append(shape)
    return shapes


def _ladder(serving: Serving, best: Candidate, budget: float, goal: float) -> tuple[dict[str, float], ...]:
    low, high = serving.setting.bounds.teacher_params
    shapes = ladder(serving.setting.architecture, float(low), float(high))
    if not shapes:
        return ()
    params = np.array([float(shape.params) for shape in shapes])
    held = _optimum(serving, best, budget, _held(serving.setting.bounds, "teacher_params", params))
    order = np.argsort(held.loss)
    return tuple(
        {
            "layers": float(shapes[k].layers),
            "params": float(params[k]),
            "tokens": float(held.teacher_tokens[k]),
            "loss": float(held.loss[k]),
        }
        for k in order
        if held.loss[k] <= goal
    )


def _held(bounds: Bounds, name: str, values: Array) -> Bounds:
    """Return the bounds with one variable held at a value per problem."""
    column = values.reshape(-1, 1)
    changes: Any = {name: (column, column)}
    return replace(bounds, **changes)


def _optimum(serving: Serving, best: Candidate, budget: float, bounds: Bounds) -> Optima:
    sides = (*bounds.student_tokens, *bounds.teacher_params, *bounds.teacher_tokens)
    rows = max(np.size(side) for side in sides)
    left = float(serving.training_budget(np.array(best.student_params), np.array(budget)))
    problems = Problems.of(
        best.student_params, np.full(rows, left), best.scenario.logits, best.scenario.pretraining
    )
    return optimize(replace(serving.setting, bounds=bounds), problems)
