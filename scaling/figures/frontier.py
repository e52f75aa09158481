"""Charts of losses over compute: every scenario beside direct training, and their crossovers.

As in Figures 8 and 17 of Busbridge et al. 2025 (arXiv 2502.08606), for any calibration.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from scaling.calibration.calibration import Calibration
from scaling.calibration.region import FAR, TOO_FAR
from scaling.costs.scenarios import SCENARIOS, Scenario, scenario_title
from scaling.errors import InputError
from scaling.figures.accessor import Plots
from scaling.figures.chart import Array, Chart, Mark, Panel, Series
from scaling.figures.labels import AXES, phrase
from scaling.frontiers.frontier import Frontier, frontier
from scaling.planner.plan import Estimate
from scaling.planner.question import Question
from scaling.units import format_times

if TYPE_CHECKING:
    from scaling.figures.figure import Figure


class FrontierPlots(Plots):
    """The figures of one frontier."""

    main = "losses"
    result: Frontier

    def losses(self) -> Figure:
        """Draw loss over compute of direct training and every scenario, with bands and crossovers."""
        return self._draw(frontier_chart(self.result))


def over_scenarios(
    calibration: Calibration,
    scenarios: Sequence[Scenario],
    sizes: Sequence[float],
    budgets: Array,
    law: str | None = None,
) -> Chart:
    """Return the loss over compute under every scenario, beside direct training, a panel a student size."""
    found = [_frontier(calibration, scenarios, size, budgets, law) for size in sizes]
    return Chart(
        panels=tuple(
            replace(frontier_panel(each), title=phrase("student_params", size))
            for each, size in zip(found, sizes, strict=True)
        ),
        title=f"{calibration.name}, {found[0].law} law",
        note=_note(found),
    )


def frontier_chart(found: Frontier) -> Chart:
    """Return the loss over compute for direct training and every scenario."""
    sizes = {size for track in found.tracks.values() for size in track.student_params}
    student = phrase("student_params", sizes.pop()) if len(sizes) == 1 else "students of the best size"
    return Chart(
        panels=(frontier_panel(found),),
        title=f"{student}, {found.calibration}, {found.law} law",
        note=_note([found]),
    )


def frontier_panel(found: Frontier) -> Panel:
    """Return the losses of a frontier with their intervals and crossovers."""
    budgets = np.array(found.budgets)
    ways = {"direct training": found.direct}
    ways |= {scenario_title(name): track.loss for name, track in found.tracks.items()}
    series, marks = [], []
    for kind, (label, losses) in enumerate(ways.items()):
        value, low, high = sides(losses)
        series.append(
            Series(
                label=label, x=budgets, y=value, low=low, high=high, kind=kind, dash="-" if kind else "--"
            )
        )  # fmt: skip
    for kind, track in enumerate(found.tracks.values(), start=1):
        events = (track.crossover.at, track.overtaking.at)
        marks += [Mark(at=event.value, kind=kind) for event in events if event is not None]
    far = [C for C, factor in zip(found.budgets, found.outside, strict=True) if factor > TOO_FAR]
    return Panel(
        x=AXES["budget"],
        y=AXES["loss"],
        series=tuple(series),
        marks=tuple(marks),
        beyond=((far[0], far[-1]),) if far else (),
    )


def _frontier(
    calibration: Calibration, scenarios: Sequence[Scenario], size: float, budgets: Array, law: str | None
) -> Frontier:
    question = Question(
        student_params=size,
        budget=float(budgets[-1]),
        scenarios=tuple(scenarios),
        law=law,
        extrapolate=True,  # as in the paper
    )
    return frontier(question, list(map(float, budgets)), calibration)


def crossovers(
    calibration: Calibration, sizes: Sequence[float], budgets: Array, law: str | None = None
) -> Chart:
    """Return the compute at which direct training catches up with distilling, over student sizes.

    By scenario that charges no training of the teacher, and by law: all of the calibration, unless one is
    named.

    Raises:
        InputError: if it does so nowhere.
    """
    free = [scenario for scenario in SCENARIOS.values() if not scenario.pretraining]
    dashes: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")
    series = []
    for kind_of_law, dash in zip([law] if law else calibration.distillation, dashes, strict=False):
        found = [_frontier(calibration, free, size, budgets, kind_of_law) for size in sizes]
        for kind, scenario in enumerate(free, start=1):
            value, low, high = sides(each.tracks[scenario.name].crossover.at for each in found)
            where = "" if np.isfinite(value).any() else ": nowhere here"
            series.append(
                Series(
                    label=f"{scenario.title}, {kind_of_law} law{where}", x=np.array(sizes), y=value,
                    low=low, high=high, kind=kind, points=(np.array(sizes), value), dash=dash,
                    hollow=dash != "-",
                )
            )  # fmt: skip
    if all(np.isnan(each.y).all() for each in series):
        raise InputError(
            f"nothing to draw: between {budgets[0]:.2g} and {budgets[-1]:.2g} FLOPs direct training catches "
            f"up for none of these students under {law or 'any law'}; ask for another range or law"
        )
    y = replace(AXES["budget"], label="compute at which direct training catches up (FLOPs)")
    return Chart(
        panels=(Panel(x=AXES["student_params"], y=y, series=tuple(series)),),
        title=f"Where distilling stops paying ({calibration.name})",
        note="bands: 90 % of fitted curves that cross; no point: no crossing within the budgets",
    )


def sides(estimates: Iterable[Estimate | None]) -> tuple[Array, Array, Array]:
    """Return values and both ends of intervals; where there is none, the value; nan for ``None``."""
    each = [found or Estimate(math.nan) for found in estimates]
    ends = [
        (e.value, e.value if e.low is None else e.low, e.value if e.high is None else e.high) for e in each
    ]
    value, low, high = np.array(ends, dtype=np.float64).T
    return value, low, high


def _note(found: Sequence[Frontier]) -> str:
    text = "bands: 90 % of single runs; dotted: where one way overtakes direct training or falls behind"
    beyond = max(max(each.outside) for each in found)
    return f"{text}; extrapolated up to {format_times(beyond)}" if beyond > FAR else text
