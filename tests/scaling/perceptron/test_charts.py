"""Content of the figures of the perceptron lab, and that they can be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scaling import InputError
from scaling.figures.render import draw
from scaling.perceptron import charts
from scaling.perceptron import distributions as d
from scaling.perceptron.capacity import capacity
from scaling.perceptron.disco import DiscoSolution
from scaling.perceptron.simulation import FREE, SIGNS, Trial


def test_capacities_are_those_of_the_table(tmp_path: Path) -> None:
    chart = charts.capacities()
    panel = chart.panels[0]
    x, rows = panel.series[0].points
    assert x.tolist() == [float(capacity(q)) for q in charts.table_distributions()]
    assert rows.tolist() == list(range(len(panel.y.names)))
    assert panel.y.names[-1] == "half-normal (J = 0.580)"
    assert (panel.series[1].points[0] < x).all()
    assert draw(chart).write(tmp_path / "capacities.svg").stat().st_size > 10_000


def test_the_phase_diagram_holds_lines_and_solved_simulations(tmp_path: Path) -> None:
    runs = [(0.8, DiscoSolution(np.ones(2), 0.4)), (1.8, DiscoSolution(np.ones(2), -0.2))]
    chart = charts.phase_diagram([d.normal(), d.laplace()], found={"normal": runs})
    lines, plane = chart.panels
    assert [each.label for each in lines.series] == ["normal", "normal, simulated", "Laplace"]
    assert [each.tolist() for each in lines.series[1].points] == [[0.4], [0.8]]
    assert lines.series[0].y[0] == pytest.approx(2)
    assert plane.field is not None
    at = int(np.argmin(abs(plane.field.y - 0.8))), int(np.argmin(abs(plane.field.x - 1.0)))
    assert plane.field.z[at] == pytest.approx(0.5031, abs=0.003)  # sigma_I = 0.8, sigma_E = 1
    assert plane.field.z[at[::-1]] < 0.48
    assert draw(chart).write(tmp_path / "phases.png").stat().st_size > 10_000


def test_learning_curves_hold_theory_and_points(tmp_path: Path) -> None:
    trials = {SIGNS: [Trial(1.0, 0.82, 0.19, 0.6)]}
    chart = charts.learning_curves(d.normal(), (0.5, 1.0, 2.0), trials, students=(FREE, SIGNS))
    free, signs, points = chart.panels[0].series
    assert (signs.y < free.y).all()
    assert points.label == "signs of the teacher, simulated"
    assert [each.tolist() for each in points.points] == [[1.0], [0.19]]
    assert draw(chart).write(tmp_path / "curves.svg").stat().st_size > 5_000


def test_unknown_students_are_refused() -> None:
    with pytest.raises(InputError, match="students: unconstrained, signs, fixed, optimal, not best"):
        charts.learning_curves(d.normal(), students=("best",))
