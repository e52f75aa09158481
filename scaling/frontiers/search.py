"""The optima at every budget of a range, as far as the budgets pay for them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling.calibration.calibration import Calibration
from scaling.costs.scenarios import Scenario
from scaling.errors import InputError
from scaling.frontiers.crossover import spans, spans_text
from scaling.planner.question import Question
from scaling.planner.solve import at_budget, setting_of, solve
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
    """Find the optima at those of the ``costs``, FLOPs, that pay for every way.

    Raises:
        Unpaid: Where fewer than two do.
    """
    affordable = [float(cost) for cost in costs if _pays(question, calibration, cost)]
    if not affordable:
        raise _unpaid(costs)
    found = solve(question, calibration, affordable)
    pays = found.direct.tokens >= 1
    usable, warnings = list[int](), list[str]()
    if found.optima is not None:
        feasible = np.isfinite(found.optima.loss)
        usable = [k for k in range(len(found.ways)) if (feasible[k] & pays).any()]
        warnings = [
            f"{way.scenario.title}: nothing within the constraints fits these budgets"
            for k, way in enumerate(found.ways)
            if k not in usable
        ]
        pays &= feasible[usable].all(axis=0)
    kept = found.budgets[pays]
    if len(kept) < 2:
        raise _unpaid(costs)
    if len(kept) < len(costs):
        left_out = spans_text(spans(costs, ~np.isin(costs, kept)))
        warnings.append(f"left out, as they do not pay for every way: {left_out}")
    return Found(
        costs=kept,
        direct_params=found.direct.params[pays],
        direct_tokens=found.direct.tokens[pays],
        scenarios=[found.ways[k].scenario for k in usable],
        decisions=found.decisions(usable, pays),
        warnings=warnings,
    )


def _unpaid(costs: Array) -> Unpaid:
    return Unpaid(
        f"fewer than two of the budgets from {format_power(costs[0])} to {format_power(costs[-1])} FLOPs pay "
        "for this student: ask for larger ones, or loosen the constraints"
    )


def _pays(question: Question, calibration: Calibration, cost: float) -> bool:
    """Return whether a budget pays for a token of the student under every scenario."""
    try:
        setting_of([at_budget(question, cost)], calibration, question.scenarios)
    except InputError:
        return False
    return True
