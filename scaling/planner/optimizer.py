"""The compute-optimal distillation of many students at once.

Under every scenario the problem is one-dimensional: a budget is split between the teacher and the student,
and each part is spent as well as it can be (see :mod:`scaling.planner.best_teacher`). The free variable is
the log odds of the teacher's part; where the teacher is free, the logarithm of what it cost somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.costs.flops import Architecture
from scaling.costs.scenarios import cost, rates, teacher_is_free
from scaling.grid_search import minimize_on_grid
from scaling.laws import AnySupervisedLaw, DistillationLaw
from scaling.planner.best_teacher import TeacherBox, best_teacher
from scaling.repeated_data import REPETITION_CONSTANT, repeated_tokens_value

Array = NDArray[np.float64]
T = TypeVar("T")
Bound = tuple[float | Array, float | Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """The smallest and largest allowed value of each variable; equal values fix it.

    Arrays of shape (P, 1) bound every problem on its own.
    """

    student_tokens: Bound = (1.0, 1e18)
    teacher_params: Bound = (1e3, 1e15)
    teacher_tokens: Bound = (1e3, 1e18)
    teacher_loss: Bound = (0.0, np.inf)
    """nats/token; a bound from below means that no better teacher is to be had."""
    student_unique_tokens: float = np.inf
    """Distinct tokens for the student; more are repetitions, valued by :mod:`scaling.repeated_data`."""
    teacher_unique_tokens: float = np.inf
    repetition: float = REPETITION_CONSTANT
    """R_D* of :mod:`scaling.repeated_data`."""


def stacked(bounds: Sequence[Bounds]) -> Bounds:
    """Return the bounds of as many problems, (P, 1) each; unique tokens are those of the first."""
    if len(bounds) == 1:
        return bounds[0]

    def column(name: str) -> Any:
        sides = np.array([getattr(each, name) for each in bounds], dtype=np.float64)
        return tuple(side.reshape(-1, 1) for side in sides.T)

    names = ("student_tokens", "teacher_params", "teacher_tokens", "teacher_loss")
    return replace(bounds[0], **{name: column(name) for name in names})


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """The laws and costs that hold for a set of problems."""

    supervised: AnySupervisedLaw
    law: DistillationLaw | None
    """``None`` where only direct training is asked about."""
    architecture: Architecture
    bounds: Bounds = field(default_factory=Bounds)

    def rows(self, block: slice) -> Setting:
        """Return the setting of some of the problems, where coefficients or bounds differ between them."""
        return Setting(
            supervised=_rows(self.supervised, block),
            law=None if self.law is None else _rows(self.law, block),
            architecture=self.architecture,
            bounds=_rows(self.bounds, block),
        )

    def repeated(self, count: int) -> Setting:
        """Return the setting with each problem repeated ``count`` times in a row."""
        if count == 1:
            return self

        def repeat(thing: T) -> T:
            return _mapped(thing, lambda array: np.repeat(array, count, axis=0))

        law = None if self.law is None else repeat(self.law)
        return replace(self, supervised=repeat(self.supervised), law=law, bounds=repeat(self.bounds))


def _rows(thing: T, block: slice) -> T:
    return _mapped(thing, lambda array: array[block])


def _mapped(thing: T, change: Callable[[Array], Array]) -> T:
    """Return a dataclass with its arrays of shape (P, ...) changed; single rows serve every problem."""

    def changed(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(changed(each) for each in value)
        return change(value) if isinstance(value, np.ndarray) and value.ndim and len(value) > 1 else value

    changes = {each.name: changed(getattr(thing, each.name)) for each in fields(thing)}  # type: ignore[arg-type]
    return replace(thing, **changes)  # type: ignore[type-var]


class Problems(NamedTuple):
    """Students, budgets and shares of the teacher's costs: arrays of shape (P, 1)."""

    student_params: Array
    budget: Array
    logits: Array
    pretraining: Array

    @classmethod
    def of(
        cls, student_params: ArrayLike, budget: ArrayLike, logits: ArrayLike, pretraining: ArrayLike
    ) -> Problems:
        """Return problems from values that broadcast against each other."""
        arrays = np.broadcast_arrays(student_params, budget, logits, pretraining)
        return cls(*(np.asarray(array, dtype=np.float64).reshape(-1, 1) for array in arrays))

    def rows(self, block: slice) -> Problems:
        """Return some of the problems."""
        return Problems(*(array[block] for array in self))


class Optima(NamedTuple):
    """The best distillation of each problem; arrays of one shape. Infeasible ones have loss inf."""

    student_params: Array
    student_tokens: Array
    teacher_params: Array
    teacher_tokens: Array
    teacher_loss: Array
    loss: Array


class Effort(NamedTuple):
    """Resolution of a search: points of the first lattice, points of each zoom, zooms."""

    first: int
    zoom: int
    zooms: int


EXACT = Effort(64, 40, 3)
"""Loss to better than 1e-6 nats/token, kinks included; decisions to 1e-4."""
QUICK = Effort(32, 16, 3)
"""Loss to about 1e-7 where it is smooth, decisions to 0.3 %: for many draws, and for maps."""
BLOCK = 8192
"""Lattice points evaluated at once, so that they stay in the cache."""


def optimize(setting: Setting, problems: Problems, effort: Effort = EXACT) -> Optima:
    """Return the optimum of every problem, shape (P,)."""
    count, step = len(problems.budget), max(1, BLOCK // effort.first)
    if count <= step:
        return _optimize(setting, problems, effort)
    blocks = [slice(start, start + step) for start in range(0, count, step)]
    parts = [_optimize(setting.rows(block), problems.rows(block), effort) for block in blocks]
    return Optima(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _optimize(setting: Setting, problems: Problems, effort: Effort) -> Optima:
    floor = _cheapest_logits(setting, problems)
    low, high = _search_range(setting, problems, floor)
    best = minimize_on_grid(
        lambda split: distil(setting, problems, split, floor).loss, low, high, **effort._asdict()
    )
    return Optima(*(values[:, 0] for values in distil(setting, problems, best, floor)))


def distil(setting: Setting, problems: Problems, split: Array, floor: Array) -> Optima:
    """Return the distillations, shape (P, K), that follow from the teacher's part of the budget.

    ``split``, shape (P, K), is ln(teacher's part / student's part). Three refinements:

    - where the teacher is free, it is ln(teacher's cost / budget);
    - where the teacher is trained, the ``floor``, shape (P, 1), which the smallest teacher's logits take, is
      taken off the odds first, so that teachers differ even if training is a trifle beside the logits;
    - where it exists, odds below the floor stand for the smallest teacher trained on fewer tokens.
    """
    bounds, architecture = setting.bounds, setting.architecture
    free = teacher_is_free(problems)
    trained, odds = problems.pretraining > 0, np.exp(split)
    tokens_left = np.where(trained | free, 1.0, np.minimum(odds / floor, 1.0))
    odds = np.where(trained, floor + odds, np.maximum(odds, floor))
    price = problems.budget * np.where(free, odds, odds / (1 + odds))
    student_budget = np.where(free, problems.budget, problems.budget / (1 + odds))
    fewest, most = bounds.student_tokens
    tokens = np.minimum(student_budget / architecture.training_flops(problems.student_params), most)
    short, long = bounds.teacher_tokens
    trained_tokens = short, long * tokens_left
    box = TeacherBox(bounds.teacher_params, trained_tokens, bounds.teacher_unique_tokens, bounds.repetition)
    teacher = best_teacher(
        price,
        _with_a_price(problems),
        tokens,
        box,
        setting.supervised,
        architecture,
    )
    best_known, worst = bounds.teacher_loss
    L_T = np.maximum(teacher.loss, best_known)
    feasible = np.isfinite(L_T) & np.less_equal(L_T, worst * (1 + 1e-12)) & (tokens >= fewest * (1 - 1e-9))
    E = setting.supervised.E
    L_T = np.where(feasible, L_T, np.where(np.greater(E, 0.0), 2.0 * E, 1.0))
    seen = repeated_tokens_value(tokens, bounds.student_unique_tokens, bounds.repetition)
    assert setting.law is not None
    loss = setting.law.loss(problems.student_params, seen, L_T, setting.supervised)
    loss = np.where(feasible, loss, np.inf)
    return Optima(
        np.broadcast_to(problems.student_params, loss.shape),
        tokens + np.zeros_like(loss),
        teacher.params,
        teacher.tokens,
        L_T,
        loss,
    )


def direct(setting: Setting, student_params: ArrayLike, budget: ArrayLike) -> tuple[Array, Array]:
    """Return tokens and loss of the student trained directly, without a teacher, on the whole budget."""
    step_flops = setting.architecture.training_flops(student_params)
    bounds = setting.bounds
    tokens = np.minimum(np.asarray(budget) / step_flops, bounds.student_tokens[1])
    seen = repeated_tokens_value(tokens, bounds.student_unique_tokens, bounds.repetition)
    return tokens, setting.supervised.loss(student_params, seen)


def _with_a_price(problems: Problems) -> Problems:
    """Return the problems with training charged where any teacher is free: its cost orders the teachers."""
    return problems._replace(pretraining=np.where(teacher_is_free(problems), 1.0, problems.pretraining))


def _cheapest_logits(setting: Setting, problems: Problems) -> Array:
    """Return the smallest teacher's logits over the student's part of the budget; tiny if they are free."""
    F, most = setting.architecture.forward_flops, setting.bounds.student_tokens[1]
    step_flops, rate, _ = rates(problems, F(problems.student_params), F(setting.bounds.teacher_params[0]))
    odds = rate / step_flops
    spent = odds / (1 + odds) * problems.budget
    if not np.all(np.isinf(most)):
        spent = np.minimum(spent, rate * most)  # the student stops at its bound
    return np.maximum(spent / (problems.budget - spent), 1e-100)


def _search_range(setting: Setting, problems: Problems, floor: Array) -> tuple[Array, Array]:
    """Return the splits between the cheapest and the most expensive teacher in the box."""
    bounds, F = setting.bounds, setting.architecture.forward_flops
    free, trained = teacher_is_free(problems), problems.pretraining > 0
    F_S, charged = F(problems.student_params), _with_a_price(problems)
    step_flops = setting.architecture.training_flops(problems.student_params)
    most = problems.budget / step_flops
    fewest = np.minimum(bounds.student_tokens[0], most)
    (smallest, largest), (short, long) = bounds.teacher_params, bounds.teacher_tokens
    cheapest = cost(charged, F_S, fewest, F(smallest), short).teacher
    low = np.where(trained | free, cheapest / problems.budget, floor * (short / long))
    spent = cost(charged, F_S, fewest, F(largest), long)
    dearest = (spent.teacher + spent.logits) / np.where(free, problems.budget, spent.student)
    high = np.minimum(dearest, np.where(free, np.inf, (most - fewest) / fewest))
    high = np.where(trained, high - floor, high)
    return np.log(low), np.log(np.maximum(high, low))
