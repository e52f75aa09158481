"""The one solver behind plans, frontiers and figures.

A question becomes a setting (laws, costs and bounds), and :func:`solve` finds the optimum of every scenario
or known teacher at every budget. A plan is solved at one budget, or at those that reach a target; a frontier
and a figure are solved at many. :meth:`scaling.planner.uncertainty.Judge.compare` then compares what was
found with direct training.

The optimizer knows how low the loss of a student of given size gets on a given budget. Either of the two may
be open: the size is then the one of least loss, or of least cost for a target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.calibration.calibration import Calibration
from scaling.costs.scenarios import Scenario
from scaling.grid_search import first_reaching, minimize_on_grid
from scaling.planner.candidates import CatalogueTeachers, ChosenTeachers, Serving, TeacherSource, Way
from scaling.planner.optimizer import QUICK, Effort, Optima, Setting, stacked
from scaling.planner.question import LARGEST_BUDGET, Question
from scaling.planner.uncertainty import Decisions

Array = NDArray[np.float64]
LossAt = Callable[[Array, Array], Array]
"""Loss by parameters and budget, both (P, K)."""

SIZES, QUICK_SIZES = Effort(32, 24, 3), Effort(16, 8, 3)
"""Resolution of the search for the student's size: to 0.01 %, and to 1 % for its spread over many draws."""
LN_LARGEST_BUDGET = math.log(LARGEST_BUDGET)


class DirectOptima(NamedTuple):
    """Direct training at every budget; arrays of shape (C,)."""

    params: Array
    tokens: Array
    spent: Array
    """FLOPs; inf where a target is out of reach, and the other entries are those of the largest budget."""
    loss: Array
    """nats/token; inf where the budget pays for no token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """The optima of a question at C budgets, for W ways to distil."""

    budgets: Array
    """FLOPs, shape (C,); nan where a target is asked for."""
    direct: DirectOptima
    ways: Sequence[Way] = ()
    optima: Optima | None = None
    """Arrays of shape (W, C), loss inf where infeasible; ``None`` where nothing can be distilled."""
    spent: Array | None = None
    """FLOPs of every optimum, (W, C); inf where a target is out of reach."""
    equal_compute: tuple[Array, Array] | None = None
    """Parameters and tokens of direct training with as many FLOPs, (W, C) each."""

    warnings: tuple[str, ...] = ()
    """Teachers that were left out, in sentences."""

    def decisions(self, ways: Sequence[int], budgets: NDArray[np.bool_]) -> Decisions | None:
        """Return some of the optima, budget by budget and way after way; ``None`` if there are none."""
        if self.optima is None or self.equal_compute is None or not len(ways):
            return None
        trained = [self.ways[k].teacher_is_trained for k in ways]
        N_S, D_S, N_T, D_T, L_T = (values[ways][:, budgets].ravel() for values in self.optima[:5])
        params, tokens = (values[ways][:, budgets].ravel() for values in self.equal_compute)
        return Decisions(N_S, D_S, N_T, D_T, L_T, np.repeat(trained, int(budgets.sum())), params, tokens)


def solve(question: Question, calibration: Calibration, budgets: Sequence[float] | None = None) -> Solution:
    """Find the optimum of every way to distil, and of direct training, at every budget.

    Args:
        question: What is asked; not a family, whose members share a teacher.
        calibration: The laws, and the rule that FLOPs are counted with.
        budgets: FLOPs, in place of the question's own budget or target.

    Raises:
        InputError: For a budget that pays for no token of the student.
    """
    asked = [question] if budgets is None else [at_budget(question, budget) for budget in budgets]
    target, sizes = asked[0].target_loss, question.sizes(calibration)
    costs = np.array([math.nan if each.budget is None else each.budget for each in asked])
    serving = Serving(setting_of(asked[-1:], calibration), question.lifetime_tokens)
    direct = _direct(serving, sizes, costs, target)
    if not calibration.distillation:
        return Solution(budgets=costs, direct=direct)
    source = _source(asked, calibration)
    optima, spent = _decide(source, sizes, np.tile(costs, len(source.ways)), target)
    shape = len(source.ways), len(costs)
    spent = spent.reshape(shape)
    same = np.broadcast_to(direct.params, shape), np.broadcast_to(direct.tokens, shape)
    return Solution(
        budgets=costs,
        direct=direct,
        ways=source.ways,
        optima=Optima(*(values.reshape(shape) for values in optima)),
        spent=spent,
        warnings=source.warnings,
        equal_compute=same if target is None else _equal_compute(serving, sizes, spent),
    )


def solve_draws(
    question: Question, calibration: Calibration, scenario: Scenario, step: int
) -> tuple[Optima, Array]:
    """Find the optima that would hold if a draw of the coefficients were the truth.

    Args:
        question: With a student's size, or a budget, or both.
        calibration: With draws.
        scenario: The teacher's costs that are charged.
        step: Distance between the draws that are taken, 1 for all.

    Returns:
        The optima, and the FLOPs they spend (inf where a target is out of reach), of shape (draws,).
    """
    setting = setting_of([question], calibration, [scenario])
    drawn = replace(
        setting,
        supervised=calibration.sampled_supervised(step),
        law=calibration.sampled_law(question.law, step),
    )
    count = len(range(0, calibration.draw_count, step))
    serving = Serving(drawn, question.lifetime_tokens)
    source = ChosenTeachers(serving, [scenario] * count, [scenario], QUICK)
    costs = np.full(count, math.nan if question.budget is None else question.budget)
    optima, spent = _decide(source, question.sizes(calibration), costs, question.target_loss, QUICK_SIZES)
    return Optima(*(values[:, 0] for values in optima)), spent[:, 0]


def at_budget(question: Question, budget: float) -> Question:
    """Return the question with this budget, FLOPs, in place of its own budget or target."""
    return replace(question, budget=float(budget), target_loss=None)


def setting_of(
    questions: Sequence[Question], calibration: Calibration, scenarios: Sequence[Scenario | None] = (None,)
) -> Setting:
    """Return the setting of questions that differ in their budget, one row each, under each scenario.

    Raises:
        InputError: For a budget that pays for no token of the student.
    """
    first = questions[0]
    return Setting(
        supervised=calibration.supervised,
        law=calibration.law(first.law) if calibration.distillation else None,
        architecture=first.counting(calibration),
        bounds=stacked([each.bounds(calibration, under) for under in scenarios for each in questions]),
    )


def _source(questions: Sequence[Question], calibration: Calibration) -> TeacherSource:
    """Return where teachers come from: a catalogue, or a free choice under each scenario."""
    first = questions[0]
    if first.teachers:
        serving = Serving(setting_of(questions, calibration), first.lifetime_tokens)
        return CatalogueTeachers.of(serving, calibration, first)
    setting = setting_of(questions, calibration, first.scenarios)
    rows = [scenario for scenario in first.scenarios for _ in questions]
    return ChosenTeachers(Serving(setting, first.lifetime_tokens), rows, first.scenarios)


def _decide(
    source: TeacherSource,
    sizes: tuple[float, float],
    costs: Array,
    target: float | None,
    effort: Effort = SIZES,
) -> tuple[Optima, Array]:
    """Return the optima and what they spend, (P, 1); those out of reach are taken at the largest budget."""
    params, spent = choose(lambda N, C: source.optima(N, C).loss, len(costs), sizes, costs, target, effort)
    reached = np.isfinite(spent)
    return source.optima(params, np.where(reached, spent, math.exp(LN_LARGEST_BUDGET))), spent


def _direct(serving: Serving, sizes: tuple[float, float], costs: Array, target: float | None) -> DirectOptima:
    params, spent = choose(serving.direct_loss, len(costs), sizes, costs, target)
    reached = np.isfinite(spent)
    params = np.where(reached, params, sizes[1])
    at = np.where(reached, spent, math.exp(LN_LARGEST_BUDGET))
    loss, tokens = serving.direct_loss(params, at), serving.direct_tokens(params, at)
    return DirectOptima(params[:, 0], tokens[:, 0], spent[:, 0], loss[:, 0])


def _equal_compute(serving: Serving, sizes: tuple[float, float], spent: Array) -> tuple[Array, Array]:
    """Return parameters and tokens of direct training with as many FLOPs as each way spends."""
    costs = np.where(np.isfinite(spent), spent, math.exp(LN_LARGEST_BUDGET)).ravel()
    params, _ = choose(serving.direct_loss, len(costs), sizes, costs, None)
    tokens = serving.direct_tokens(params, costs[:, None])
    return params.reshape(spent.shape), tokens.reshape(spent.shape)


def choose(
    loss_at: LossAt,
    rows: int,
    sizes: tuple[float, float],
    budget: float | Array | None,
    target: float | None,
    effort: Effort = SIZES,
) -> tuple[Array, Array]:
    """Return parameters and budget of every row, shape (P, 1) each.

    Args:
        loss_at: The least loss of a student of given size on a given budget.
        rows: How many rows there are.
        sizes: Bounds of the parameters; equal bounds fix them.
        budget: FLOPs, one for all or one a row; not used with a target.
        target: nats/token. The budget is then the least that reaches it, and inf where none does.
        effort: How finely sizes are searched.
    """
    low, high = (np.full((rows, 1), math.log(size)) for size in sizes)
    free = sizes[0] < sizes[1]
    if target is None:
        cost = np.broadcast_to(np.asarray(budget, dtype=np.float64).reshape(-1, 1), (rows, 1))
        if not free:
            return np.full((rows, 1), sizes[0]), cost
        best = minimize_on_grid(
            lambda size: loss_at(np.exp(size), cost + np.zeros_like(size)), low, high, **effort._asdict()
        )
        return np.exp(best), cost
    goal = target

    def needed(size: Array) -> Array:
        ends = np.log(np.exp(size)), np.full_like(size, LN_LARGEST_BUDGET)
        return first_reaching(lambda cost: loss_at(np.exp(size), np.exp(cost)), goal, *ends)

    if not free:
        return np.full((rows, 1), sizes[0]), np.exp(needed(low))
    best = minimize_on_grid(needed, low, high, **effort._asdict())
    return np.exp(best), np.exp(needed(best))
