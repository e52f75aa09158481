"""Charts of a plan: losses with their intervals, allocations, and the ranges of decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scaling.figures.accessor import Plots
from scaling.figures.chart import Axis, Bars, Chart, Mark, Panel, Series
from scaling.figures.decisions import PARTS
from scaling.figures.frontier import sides
from scaling.figures.labels import AXES
from scaling.figures.optima import DECIDED
from scaling.planner.plan import DISTIL, Estimate
from scaling.reports.plan_text import asked

if TYPE_CHECKING:
    from scaling.figures.figure import Figure
    from scaling.planner.plan import Plan


class PlanPlots(Plots):
    """The figures of one plan."""

    main = "losses"
    result: Plan

    def losses(self) -> Figure:
        """Draw the student's loss by every way with its 90 % interval, and the gain over direct training."""
        return self._draw(losses(self.result))

    def shares(self) -> Figure:
        """Draw what the compute is spent on, way by way."""
        return self._draw(shares(self.result))

    def decisions(self) -> Figure:
        """Draw what every way decides, and what 90 % of the draws would."""
        return self._draw(decisions(self.result))


def losses(plan: Plan) -> Chart:
    """Return losses and gains, a row and a marker a way; filled where the verdict is to distil."""
    names = (*("direct training" for _ in plan.direct), *(way.title for way in plan.distillations))
    loss = [_row(row, way.loss, kind=0) for row, way in enumerate(plan.direct)]
    gain = []
    for kind, way in enumerate(plan.distillations, start=1):
        row = len(plan.direct) + kind - 1
        loss.append(_row(row, way.loss, kind, way.verdict != DISTIL))
        gain.append(_row(row, way.gain, kind, way.verdict != DISTIL))
    return Chart(
        panels=(
            Panel(x=AXES["loss"], y=_rows(names), series=tuple(loss)),
            Panel(x=AXES["gain"], y=_rows(names, shown=False), series=tuple(gain), marks=(Mark(at=0.0),)),
        ),
        title=asked(plan),
        note="filled: distil; lines: 90 % of single runs",
    )


def shares(plan: Plan) -> Chart:
    """Return the compute of every way, in parts."""
    serving = any(way.serving_flops for way in plan.distillations)
    labels = (*PARTS, "serving the student")[: 3 + serving]
    parts = np.array(
        [
            (way.student_flops, way.logits_flops, way.teacher_flops, way.serving_flops)[: len(labels)]
            for way in plan.distillations
        ]
    )
    panel = Panel(
        x=Axis(label="share of the compute", limits=(0.0, 1.0)),
        y=_rows(tuple(way.title for way in plan.distillations)),
        bars=Bars(labels=labels, shares=parts / parts.sum(axis=1, keepdims=True)),
    )
    return Chart(panels=(panel,), title=asked(plan))


def decisions(plan: Plan) -> Chart:
    """Return the decisions, a panel a variable, a row a way."""
    names = tuple(way.title for way in plan.distillations)
    panels = []
    for column, name in enumerate(DECIDED):
        series = []
        for row, way in enumerate(plan.distillations):
            value = way.tokens if name == "student_tokens" else getattr(way, name)
            if value is not None:
                found = Estimate(value, *way.ranges.get(name, (value, value)))
                series.append(_row(row, found, kind=row + 1))
        panels.append(Panel(x=AXES[name], y=_rows(names, shown=column % 2 == 0), series=tuple(series)))
    return Chart(panels=tuple(panels), title=asked(plan), note="lines: decisions under 90 % of fitted curves")


def _rows(names: tuple[str, ...], shown: bool = True) -> Axis:
    return Axis(label="", names=names if shown else ("",) * len(names))


def _row(row: int, estimate: Estimate, kind: int, hollow: bool = False) -> Series:
    value, low, high = sides([estimate])
    points = value, np.array([float(row)])
    return Series(points=points, spans=(low, high), kind=kind, marker=kind, hollow=hollow)
