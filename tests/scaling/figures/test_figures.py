"""Content of figures against independent computation, and their drawing against small pictures."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from scaling import Calibration, InputError, Question, frontier, plan
from scaling.costs.scenarios import BOTH, INFERENCE
from scaling.figures import draw, paper, registry, render, style
from scaling.figures import frontier as frontier_figures
from scaling.figures import plan as of_plans
from scaling.figures.chart import Axis, Chart, Panel, Series
from scaling.figures.decisions import decide, redecided
from scaling.figures.law_inputs import law_inputs, near_runs
from scaling.figures.registry import KINDS, FigureOptions, chart
from scaling.figures.slices import contour_levels

RUNS = Calibration.load("busbridge2025-figure1-runs")
CURVES = Calibration.load("busbridge2025-figure1-curves")
BASELINES = Path(__file__).with_name("baselines")
BLOCK = 6
"""Pixels: pictures are compared by the means of such squares, in which letters are but a shade."""
TOLERANCE = 10.0
"""Root mean square of differences of 0..255. Another font altogether (serifs) stays below 9."""


def asked(**wish):
    return FigureOptions(calibration=RUNS, **wish)


def panel_of(kind, number=0, **wish):
    return chart(kind, asked(**wish)).panels[number]


def test_a_place_says_the_same_in_every_variable():
    """Tokens, tokens per parameter, compute and a budget that pays for all are one run in four words."""
    architecture, supervised = RUNS.architecture, RUNS.supervised
    teacher = {"teacher_params": 2e9, "teacher_tokens": 4e10}
    compute = float(architecture.training_flops(1e9, 2e10))
    everything = (
        compute
        + float(architecture.forward_flops(2e9)) * 2e10
        + float(architecture.training_flops(2e9, 4e10))
    )
    for student in (
        {"student_tokens": 2e10},
        {"student_ratio": 20.0},
        {"student_compute": compute},
        {"budget": everything, "logits": 1.0, "pretraining": 1.0},
    ):
        at = law_inputs({"student_params": 1e9, **student, **teacher}, architecture, supervised)
        assert at.student_tokens == pytest.approx(2e10, rel=1e-12)
        assert at.teacher_loss == pytest.approx(float(supervised.loss(2e9, 4e10)), rel=1e-12)


def test_a_place_that_is_not_determined_says_what_is_missing():
    for given, missing in (
        ({"student_params": 1e9, "student_tokens": 2e10}, "teachers' loss"),
        ({"student_params": 1e9, "teacher_loss": 2.0}, "tokens, tokens per parameter or compute"),
    ):
        with pytest.raises(InputError, match=missing):
            law_inputs(given, RUNS.architecture, RUNS.supervised)


def test_a_line_is_the_law_and_its_band_holds_it():
    panel = panel_of("teacher-loss", students=(546e6,), tokens=(24e9,))
    line, alone = panel.series
    assert line.y == pytest.approx(RUNS.law().loss(546e6, 24e9, line.x, RUNS.supervised), rel=1e-12)
    assert np.all((line.low <= line.y + 0.01) & (line.y - 0.01 <= line.high) & (line.low < line.high))
    assert alone.y == pytest.approx(float(RUNS.supervised.loss(546e6, 24e9)))
    assert (panel.x.label, panel.y.label) == (
        "teacher loss $L_T$ (nats/token)",
        "student loss $L_S$ (nats/token)",
    )


def test_lines_are_faint_where_runs_are_far():
    """The fitted students have 143M to 7.75B parameters; 1.5 times beyond still counts as near."""
    near = law_inputs({"student_params": np.array([9e7, 1e8, 1e9, 1.1e10, 1.2e10]), "student_tokens": 2e10,
                  "teacher_loss": 2.2}, RUNS.architecture, RUNS.supervised)  # fmt: skip
    assert near_runs(RUNS, near).tolist() == [False, True, True, True, False]


def test_the_best_teachers_line_is_the_minimum_of_its_map():
    panel = panel_of("best-teacher-by-size", students=(1e8, 2e9), tokens=(1e11,))
    (line,) = panel.series
    fine = np.linspace(1.6, 2.6, 4001)
    for k in (5, 30, 55):
        N = panel.field.x[k]
        best = fine[np.argmin(RUNS.law().loss(N, 1e11, fine, RUNS.supervised))]
        assert line.y[k] == pytest.approx(best, abs=0.004)
        assert line.low[k] <= best <= line.high[k]


def test_optima_are_the_planners():
    budget = np.array([1e20, 1e21])
    found = decide(RUNS, BOTH, 1e9, budget)
    for k, C in enumerate(budget):
        answer = plan(Question(student_params=1e9, budget=C, scenarios=(BOTH,)), RUNS)
        (way,), (alone,) = answer.distillations, answer.direct
        assert found.optima.loss[k] == pytest.approx(way.loss.value, abs=1e-7)
        assert found.direct[k] == pytest.approx(alone.loss.value, abs=1e-9)
        assert found.shares[k] == pytest.approx(way.shares, abs=1e-4)
    drawn, shares = redecided(RUNS, BOTH, 1e9, 1e21)
    low, high = np.quantile(drawn.teacher_params, [0.05, 0.95])
    ranges = answer.distillations[0].ranges["teacher_params"]
    assert (low, high) == pytest.approx(ranges, rel=0.05)
    assert shares.sum(axis=1) == pytest.approx(1.0)


def test_a_map_shows_every_quantity_that_varies_losses_as_well_as_gains():
    """The gain is negative everywhere if the teacher has to be trained, and is shown all the same."""
    question = {"students": (1e9, 1e10), "budgets": (1e20, 1e21), "scenarios": (BOTH,)}
    found = chart("map", asked(**question, law="published"))
    gains = [panel.field for panel in found.panels if panel.field.diverging]
    assert len(found.panels) == 6 and np.all(gains[0].z < 0)


def test_savings_say_what_direct_training_would_take():
    """Train the student directly on as many tokens as the figure says, and it has the loss that it says."""
    figure = chart("savings", FigureOptions(calibration=CURVES, students=(1e9,), budgets=(1e20, 1e22)))
    tokens = next(panel for panel in figure.panels if "tokens" in panel.y.label)
    (line,) = tokens.series
    found = decide(CURVES, registry.SCENARIOS["best_case"], 1e9, np.geomspace(1e20, 1e22, 40))
    reached = CURVES.supervised.loss(1e9, found.optima.student_tokens / line.y)
    assert reached == pytest.approx(line.x, abs=1e-9)
    assert np.all(line.y[:20] < 1)


def test_savings_count_a_teachers_tokens_where_its_training_is_charged_and_have_bands():
    asked_for = {"students": (1e9,), "budgets": (1e20, 1e22), "scenarios": (BOTH,)}
    compute, tokens = chart("savings", asked(**asked_for)).panels
    (line,), (priced,) = tokens.series, compute.series
    found = decide(RUNS, BOTH, 1e9, np.geomspace(1e20, 1e22, len(line.x))).optima
    alone = (found.student_tokens + found.teacher_tokens) / line.y
    assert RUNS.supervised.loss(1e9, alone) == pytest.approx(line.x, abs=1e-9)
    drawn = np.isfinite(priced.low)
    assert drawn.sum() > 20
    inside = (priced.low <= priced.y) & (priced.y <= priced.high)
    assert inside[drawn].mean() > 0.9


def test_several_prices_are_several_rows_with_the_best_teacher_of_each():
    given = {"students": (1e9, 3e9), "teachers": (1e9, 1e11), "budgets": (1e22, 1e24)}
    figure = chart("teacher-at-a-price", asked(**given))
    assert [panel.title for panel in figure.panels[::3]] == [
        "1B student, 1e22 FLOPs",
        "3B student, 1e24 FLOPs",
    ]
    cheap, dear = figure.panels[0].series[0].y, figure.panels[2].series[0].y
    assert np.all(dear < cheap)  # a budget for more tokens wants a stronger teacher


def test_one_decision_under_every_scenario_is_the_planners():
    budgets = {"students": (1e9,), "budgets": (1e20, 1e22)}
    (panel,) = chart("best-student-tokens", asked(**budgets)).panels
    *ways, alone = panel.series
    answer = plan(Question(student_params=1e9, budget=1e22, extrapolate=True), RUNS)
    tokens = [way.tokens for way in answer.distillations]
    assert [way.y[-1] for way in ways] == pytest.approx(tokens, rel=1e-3)
    assert alone.y[-1] == pytest.approx(answer.direct[0].tokens)


def test_crossings_are_the_frontiers_and_none_are_said():
    found = frontier_figures.crossovers(CURVES, (5e8, 1e9), np.geomspace(1e19, 1e24, 20))
    at = [series.y[1] for series in found.panels[0].series]
    question = Question(student_params=1e9, budget=1e20, extrapolate=True)
    told = frontier(question, list(np.geomspace(1e19, 1e24, 20)), CURVES)
    assert at[1] == pytest.approx(told.tracks["teacher_inference"].crossover.at.value)
    with pytest.raises(InputError, match="catches up for none of these students under published"):
        frontier_figures.crossovers(RUNS, (1e9,), np.geomspace(1e19, 1e20, 5), "published")


def test_the_neighbourhood_of_an_optimum_is_above_it():
    field = panel_of("near", students=(1e9,), budgets=(1e21,)).field
    assert np.nanmin(field.z) > -1e-9
    center = len(field.x) // 2
    middle = field.z[center - 1 : center + 1, center - 1 : center + 1]
    assert np.max(middle) < 0.003
    assert np.isnan(field.z[-1, -1])  # more than the budget


def test_contours_are_round_and_cover_the_values():
    assert contour_levels(np.linspace(1.83, 2.71, 99)) == tuple(np.round(np.arange(1.8, 2.85, 0.1), 6))
    assert contour_levels(np.array([2e9, 3e11]), log=True) == (2e9, 5e9, 1e10, 2e10, 5e10, 1e11, 2e11)
    signed = contour_levels(np.linspace(-0.06, 0.3, 99), diverging=True)
    assert signed == (-0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
    assert contour_levels(np.linspace(0.001, 0.3, 99), diverging=True)[0] == 0.0


def test_gains_and_losses_of_one_size_have_colors_of_one_strength():
    """Zero is even however far either side reaches, and no contour beside it looks even."""
    levels = (-0.2, -0.1, -0.05, 0.0, 0.05)
    colors = np.array(style.of_contours(levels, diverging=True))[:, :3]
    even = np.array(mpl.colors.to_rgb(style.DIVERGING[1]))
    strength = np.abs(colors - even).sum(axis=1)
    assert len(colors) == len(levels) + 1
    assert strength[2] > strength[3] > 0 and np.all(np.diff(strength[:4]) < 0)
    assert colors[3][0] > colors[3][2] and colors[4][2] > colors[4][0]  # orange below zero, blue above
    assert np.allclose(colors[0], mpl.colors.to_rgb(style.DIVERGING[0]), atol=0.01)


def test_panels_share_axes_legend_and_color_bar():
    """What several panels have in common is written once, and nothing stands beside the panels."""
    lines = draw("capacity-gap", RUNS)
    left, *others = lines.axes
    assert len({at.get_ylim() for at in lines.axes}) == 1
    assert left.get_ylabel() and not any(at.get_ylabel() for at in others)
    (legend,) = lines.subfigs[0].legends
    lines.draw_without_rendering()
    below = legend.get_window_extent().y1
    assert all(below <= at.get_tightbbox().y0 + 1 for at in lines.axes)
    assert legend.get_window_extent().y0 >= lines._supxlabel.get_window_extent().y1 - 1
    maps = draw("gain", RUNS)
    assert len(maps.axes) == 4 + 1
    assert [at.get_xlabel() != "" for at in maps.axes[:4]] == [False, False, True, True]


def test_files_are_for_print_and_notebooks_show_sharp_pictures(tmp_path):
    figure = draw("near", RUNS, students=(1e9,), budgets=(1e21,))
    width, height = figure.get_size_inches()
    written = mpl.image.imread(figure.write(tmp_path / "a.png"))
    assert written.shape[:2] == pytest.approx((300 * height, 300 * width), abs=1)
    png, shown = figure._repr_png_()
    (tmp_path / "b.png").write_bytes(png)
    sharp = mpl.image.imread(tmp_path / "b.png")
    assert sharp.shape[:2] == pytest.approx((144 * height, 144 * width), abs=1)
    assert (shown["height"], shown["width"]) == pytest.approx((72 * height, 72 * width), abs=1)
    assert "<svg" in figure._repr_svg_()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_suits_calibrations_of_any_scale(kind):
    """Models of ten thousand parameters, no draws, and only what a fit to a small sweep knows."""
    small = Calibration.load(Path(__file__).with_name("small_calibration.json"))
    found = chart(kind, FigureOptions(calibration=small))
    for panel in found.panels:
        drawn = [np.isfinite(series.y).any() for series in panel.series if len(series.x)]
        assert panel.field is not None or any(drawn) or panel.series
        assert "(" in panel.x.label or "tokens" in panel.x.label


@pytest.mark.parametrize("number", paper.FIGURES)
def test_the_papers_figures_are_of_known_kinds_and_ask_what_these_heed(number):
    kind, settings = paper.FIGURES[number]
    assert set(settings) <= set(KINDS[kind].takes)


def test_wrong_wishes_are_refused_by_name():
    for call, message in (
        (lambda: chart("near", asked(ratios=(3.0,))), "near takes students, budgets, scenarios, not ratios"),
        (lambda: chart("scenery", asked()), "no figure 'scenery'; there are teacher-loss"),
        (lambda: paper.figure(5, asked()), "no figure 5 of the paper; there are 1, 2, 3, 4, 6"),
        (lambda: chart("shares", asked(scenarios=(BOTH, INFERENCE))), "shows one scenario"),
        (lambda: chart("near", asked(budgets=(1e20, 1e21))), "shows one budget"),
        (lambda: chart("near", asked(students=(1e8, 1e9))), "shows one student"),
        (
            lambda: chart("scenarios", asked(budgets=(1e21,))),
            "budgets: .* give its two ends, not 1e.21 alone",
        ),
        (
            lambda: chart("gain", FigureOptions(calibration=Calibration.load("hoffmann2022"))),
            "supervised law only",
        ),
        (lambda: chart("gain", asked(law="magic")), "no law 'magic'"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_a_plans_figures_hold_its_numbers():
    answer = plan(Question(student_params=1e9, budget=1e21, lifetime_tokens=1e10), RUNS)
    losses, gains = of_plans.losses(answer).panels
    assert losses.y.names == ("direct training", *(way.title for way in answer.distillations))
    told = [float(series.points[0][0]) for series in losses.series[1:]]
    assert told == [way.loss.value for way in answer.distillations]
    assert [not series.hollow for series in gains.series] == [
        way.verdict == "distil" for way in answer.distillations
    ]
    (shares,) = of_plans.shares(answer).panels
    assert shares.bars.shares.sum(axis=1) == pytest.approx(1.0)
    assert shares.bars.labels[-1] == "serving the student"
    sizes = of_plans.decisions(answer).panels[1]
    assert [tuple(float(end[0]) for end in series.spans) for series in sizes.series] == [
        way.ranges["teacher_params"] for way in answer.distillations
    ]


def picture(name: str):
    """One figure of every sort of mark: lines with bands and points, a map with a ridge, rows, bars."""
    answer = plan(Question(student_params=1e9, budget=1e21), RUNS)
    return {
        "lines": lambda: draw("capacity-gap", RUNS, students=(143e6, 546e6)),
        "map": lambda: draw("best-teacher-by-size", RUNS, tokens=(250e9,), students=(1e8, 1e11)),
        "rows-dark": lambda: answer.plot.on_dark.losses(),
        "bars": lambda: answer.plot.shares(),
    }[name]()  # fmt: skip


def apart(*paths: Path) -> float:
    """Return the difference of two pictures of one size."""
    coarse = []
    for path in paths:
        image = mpl.image.imread(path)[..., :3] * 255
        rows, columns = (side // BLOCK for side in image.shape[:2])
        squares = image[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK, 3)
        coarse.append(squares.mean(axis=(1, 3)))
    return float(np.sqrt(np.mean(np.subtract(*coarse) ** 2)))


@pytest.mark.parametrize("name", ["lines", "map", "rows-dark", "bars"])
def test_figures_look_as_they_did(name, tmp_path):
    """Draw the baselines anew with UPDATE_SNAPSHOTS=1 and look at them when a change is meant."""
    target = tmp_path / f"{name}.png"
    picture(name).savefig(target, dpi=40)
    baseline = BASELINES / target.name
    if os.environ.get("UPDATE_SNAPSHOTS"):
        baseline.write_bytes(target.read_bytes())
    assert apart(baseline, target) < TOLERANCE


def test_a_picture_without_its_band_would_be_noticed(tmp_path):
    """The tolerance is worth something."""
    x = np.linspace(0, 1, 9)
    pictures = []
    for series in ((), (Series(x=x, y=x, low=x - 0.3, high=x + 0.3),)):
        target = tmp_path / f"{len(series)}.png"
        axis = Axis(label="x", limits=(0.0, 1.0))
        render.draw(Chart(panels=(Panel(x=axis, y=axis, series=series),))).savefig(target, dpi=40)
        pictures.append(target)
    assert apart(*pictures) > TOLERANCE


def test_files_repeat_themselves_and_wrong_places_are_said(tmp_path):
    figure = draw("shares", RUNS, students=(1e9,))
    for suffix in ("svg", "pdf", "png"):
        first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
        figure.write(first)
        draw("shares", RUNS, students=(1e9,)).write(second)
        assert first.read_bytes() == second.read_bytes()
    for path, message in ((tmp_path / "a.gif", r"--out .*a\.gif: a figure is a \.png, \.svg or \.pdf file"),
                          (tmp_path / "no" / "a.png", "cannot write the figure")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            figure.write(path)
