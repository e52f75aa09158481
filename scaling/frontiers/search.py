"""The best size, tokens and teacher at every budget of a range, as far as the budgets pay for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.calibration.calibration import Calibration
from scaling.costs.scenarios import DESCRIPTIONS, Scenario
from scaling.errors import InputError
from scaling.frontiers.crossover import spans, spans_text
from scaling.planner.candidates import ScenarioWays, Serving
from scaling.planner.optimizer import Bounds, Optima, Setting, stacked
from scaling.planner.question import Question
from scaling.planner.size_search import choose
from scaling.planner.uncertainty import Decisions
from scaling.units import format_power

Array = NDArray[np.float64]


class Unpaid(InputError):
    """No two budgets of a range pay for what is asked."""


class Found(NamedTuple):
    """The optima along the budgets that pay for them."""

    costs: Array
    direct_params: Array
    direct_tokens: Array
    scenarios: list[Scenario]
    decisions: Decisions | None
    """Budget by budget, scenario after scenario; ``None`` where nothing can be distilled."""
    warnings: list[str]

    @property
    def direct(self) -> list[tuple[float, float]]:
        """Parameters and tokens of direct training."""
        return [(float(N), float(D)) for N, D in zip(self.direct_params, self.direct_tokens, strict=True)]


def search(question: Question, calibration: Calibration, costs: Array) -> Found:
    """The optima at those of the ``costs``, FLOPs, that pay for every way.

    Raises :class:`Unpaid` where fewer than two do.
    """
    asked = costs
    costs = np.array([cost for cost in costs if _bounds(question, calibration, cost) is not None])
    sizes = question.sizes(calibration)
    alone, tokens = _direct(question, calibration, costs, sizes)
    pays = tokens >= 1
    scenarios: list[Scenario] = []
    optima, warnings = None, []
    if calibration.distillation and len(costs):
        optima = _optima(question, calibration, costs, sizes)
        feasible = np.isfinite(optima.loss)
        scenarios = [each for k, each in enumerate(question.scenarios) if (feasible[k] & pays).any()]
        usable = [k for k, each in enumerate(question.scenarios) if each in scenarios]
        warnings = [
            f"{DESCRIPTIONS.get(each.name, each.name)}: nothing within the constraints fits these budgets"
            for each in question.scenarios
            if each not in scenarios
        ]
        optima = Optima(*(values[usable] for values in optima))
        pays &= feasible[usable].all(axis=0)
    kept = costs[pays]
    if len(kept) < 2:
        raise Unpaid(
            f"budgets of {format_power(asked[0])} to {format_power(asked[-1])} FLOPs do not pay for this "
            "student at two places: ask for larger ones, or loosen the constraints"
        )
    if len(kept) < len(asked):
        warnings.append(f"left out, as they do not pay for every way: {_left_out(asked, kept)}")
    decisions = None
    if optima is not None and scenarios:
        decided = Optima(*(values[:, pays].ravel() for values in optima))
        trained = np.repeat([each.pretraining > 0 for each in scenarios], len(kept))
        beside = (np.tile(values[pays], len(scenarios)) for values in (alone, tokens))
        decisions = Decisions(*decided[:5], trained, *beside)
    return Found(kept, alone[pays], tokens[pays], scenarios, decisions, warnings)


def _left_out(asked: Array, kept: Array) -> str:
    return spans_text(spans(asked, ~np.isin(asked, kept)))


def _bounds(
    question: Question, calibration: Calibration, cost: float, scenario: Scenario | None = None
) -> Bounds | None:
    """The planner's own at this budget; ``None`` where it pays for nothing."""
    try:
        return replace(question, budget=float(cost), target_loss=None).bounds(calibration, scenario)
    except InputError:
        return None


def _direct(
    question: Question, calibration: Calibration, costs: Array, sizes: tuple[float, float]
) -> tuple[Array, Array]:
    """Parameters and tokens of direct training, by budget."""
    if not len(costs):
        return costs, costs
    bounds = _bounds(question, calibration, costs[-1])
    serving = Serving(_setting(question, calibration, [bounds]), question.lifetime_tokens)
    alone = choose(serving.direct_loss, len(costs), sizes, costs, None)[0][:, 0]
    tokens = [serving.direct_tokens(*at) for at in zip(alone, costs, strict=True)]
    return alone, np.array(tokens)


def _optima(question: Question, calibration: Calibration, costs: Array, sizes: tuple[float, float]) -> Optima:
    """The best distillations, (scenarios, budgets)."""
    rows = [scenario for scenario in question.scenarios for _ in costs]
    each = [
        _bounds(question, calibration, cost, scenario) for scenario in question.scenarios for cost in costs
    ]
    ways = ScenarioWays(Serving(_setting(question, calibration, each), question.lifetime_tokens), rows)
    budgets = np.tile(costs, len(question.scenarios))
    size, cost = choose(lambda N, C: ways.optima(N, C).loss, ways.rows, sizes, budgets, None)
    return Optima(*(values.reshape(-1, len(costs)) for values in ways.optima(size, cost)))


def _setting(question: Question, calibration: Calibration, bounds: Sequence[Bounds | None]) -> Setting:
    known = [each for each in bounds if each is not None]
    return Setting(
        supervised=calibration.supervised,
        law=calibration.law(question.law) if calibration.distillation else None,
        architecture=question.counting(calibration),
        bounds=known[0] if len(known) == 1 else stacked(known),
    )
