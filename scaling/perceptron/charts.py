"""Figures of the perceptron lab, as charts; :func:`scaling.figures.render.draw` draws them.

from scaling.figures.render import draw
from scaling.perceptron import charts

draw(charts.capacities()).write("capacities.svg")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from scaling.errors import InputError
from scaling.figures.chart import Axis, Chart, Field, Panel, Series, orders
from scaling.perceptron import distributions
from scaling.perceptron.capacity import balanced_lognormal_capacity, capacity
from scaling.perceptron.disco import DiscoSolution
from scaling.perceptron.distributions import Array, WeightDistribution
from scaling.perceptron.learning_curves import (
    LearningCurve,
    learning_curve,
    sign_constrained,
    unconstrained,
    with_distribution,
)
from scaling.perceptron.optimal_distribution import optimal_student
from scaling.perceptron.simulation import FREE, SIGNS, Trial

LOAD = "patterns per weight $\\alpha$"
FIXED, OPTIMAL = "fixed", "optimal"
"""Names of the students with the teacher's distribution, and with the best one."""
STUDENTS = {
    FREE: "unconstrained",
    SIGNS: "signs of the teacher",
    FIXED: "distribution of the teacher",
    OPTIMAL: "best distribution at each load",
}
"""Students of a learning-curve figure, with their labels."""


def table_distributions() -> tuple[WeightDistribution, ...]:
    """Return the distributions of the capacity table."""
    return (
        distributions.normal(),
        distributions.student_t(),
        distributions.laplace(),
        distributions.uniform(),
        distributions.ternary(0.5),
        distributions.binary(),
        distributions.rectified_normal(),
        distributions.normal(0.7),
        distributions.lognormal(1.0),
        distributions.half_normal(),
    )


def capacities(margins: Sequence[float] = (0.0, 0.5), of: Iterable[WeightDistribution] = ()) -> Chart:
    """Return the capacity table as a figure: one row a distribution, one series a margin.

    Raises:
        InputError: For a negative margin, or a distribution without unit second moment.
    """
    rows = tuple(of) or table_distributions()
    places = np.arange(len(rows), dtype=np.float64)
    series = tuple(
        Series(
            label=f"margin {margin:g}",
            points=(np.array([float(capacity(each, margin)) for each in rows]), places),
            order=order,
        )
        for margin, order in zip(margins, orders(len(margins)), strict=True)
    )
    names = tuple(f"{each.name} (J = {each.gaussian_overlap:.3f})" for each in rows)
    panel = Panel(x=Axis(label="capacity, " + LOAD), y=Axis(label="", names=names), series=series)
    return Chart(panels=(panel,), title="Capacity by distribution of weights")


def phase_diagram(
    of: Iterable[WeightDistribution] = (),
    found: Mapping[str, Sequence[tuple[float, DiscoSolution]]] | None = None,
    excitatory: float = 0.8,
) -> Chart:
    """Return capacity over margin, and over the two widths of balanced lognormal populations.

    Args:
        of: Distributions, a line each: above it, no weights of that distribution have the margin.
        found: Simulations by the name of their distribution: loads and solutions, drawn as points.
        excitatory: Fraction of excitatory weights in the second panel.

    Raises:
        InputError: For a distribution without unit second moment, or a fraction outside 0 to 1.
    """
    rows = tuple(of) or (distributions.normal(), distributions.normal(0.7), distributions.lognormal(1.0))
    margin = np.linspace(0.0, 2.0, 81)
    lines: list[Series] = []
    for kind, each in enumerate(rows, start=1):
        lines.append(Series(label=each.name, x=margin, y=capacity(each, margin), kind=kind))
        solved = [(load, run.margin) for load, run in (found or {}).get(each.name, ()) if run.solved]
        if solved:
            load, kappa = np.array(solved).T
            lines.append(Series(label=f"{each.name}, simulated", points=(kappa, load), kind=kind))
    lines_panel = Panel(
        x=Axis(label="margin $\\kappa$"),
        y=Axis(label=LOAD, limits=(0.0, 2.1)),
        title="solvable below each line",
        series=tuple(lines),
    )
    return Chart(
        panels=(lines_panel, _balanced_panel(excitatory)),
        title="Capacity with constrained distributions of weights",
        columns=2,
    )


def _balanced_panel(excitatory: float) -> Panel:
    widths = np.linspace(0.02, 2.0, 67)
    return Panel(
        x=Axis(label="$\\sigma_E$ of excitatory weights"),
        y=Axis(label="$\\sigma_I$ of inhibitory weights"),
        title=f"balanced lognormal populations, {100 * excitatory:g} % excitatory",
        field=Field(
            x=widths,
            y=widths,
            z=balanced_lognormal_capacity(widths[None, :], widths[:, None], excitatory),
            levels=(0.05, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5),
            label="capacity $\\alpha_c$",
        ),
    )


def learning_curves(
    teacher: WeightDistribution,
    alphas: Sequence[float] = tuple(np.geomspace(0.05, 8.0, 25)),
    trials: Mapping[str, Sequence[Trial]] | None = None,
    students: Sequence[str] = tuple(STUDENTS),
) -> Chart:
    """Return generalization error over the load, a line for each kind of student.

    Args:
        teacher: Distribution of the teacher's weights.
        alphas: Loads of the lines.
        trials: Simulations by kind of student, drawn as points.
        students: Keys of :data:`STUDENTS`.

    Raises:
        InputError: For an unknown student, a load that is not positive, or a distribution without unit
            second moment.
    """
    if unknown := set(students) - set(STUDENTS):
        raise InputError(f"students: {', '.join(STUDENTS)}, not {', '.join(sorted(unknown))}")
    series: list[Series] = []
    for kind, student in enumerate(students, start=1):
        curve = _curve(student, teacher, np.asarray(alphas, dtype=np.float64))
        series.append(Series(label=STUDENTS[student], x=curve.alpha, y=curve.error, kind=kind))
        if runs := (trials or {}).get(student):
            points = np.array([run.alpha for run in runs]), np.array([run.error for run in runs])
            series.append(Series(label=f"{STUDENTS[student]}, simulated", points=points, kind=kind))
    panel = Panel(
        x=Axis(label=LOAD, log=True),
        y=Axis(label="generalization error $\\epsilon_g$", log=True),
        series=tuple(series),
    )
    return Chart(panels=(panel,), title=f"Learning a teacher's rule: {teacher.name}")


def _curve(student: str, teacher: WeightDistribution, alphas: Array) -> LearningCurve:
    if student == OPTIMAL:
        return optimal_student(alphas, teacher).curve
    if student == FREE:
        return learning_curve(alphas, unconstrained())
    of_teacher = sign_constrained if student == SIGNS else with_distribution
    return learning_curve(alphas, of_teacher(teacher))
