"""The figures' data, and that they can be drawn and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from samples_of_fits import sweep

from fits import Fit, fit
from fits.plots import charts
from scaling import InputError


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(sweep(noise=0.01), gamma=1.0, draws=40)


def test_law_panels_hold_every_distillation_once(found: Fit) -> None:
    panels = charts.law_chart(found, "effective-tokens").panels
    assert [panel.title for panel in panels] == ["8K student", "30K student", "100K student"]
    lines = [series for panel in panels for series in panel.series if series.low is not None]
    assert sum(len(line.points[0]) for line in lines) == 24
    assert all(np.all(line.low <= line.high) for line in lines)


def test_isoflop_runs_keep_their_residual(found: Fit) -> None:
    (panel,) = charts.isoflop_chart(found).panels
    *lines, _optima = panel.series
    assert sum(len(line.points[0]) for line in lines) == 16
    line = max(lines, key=lambda line: len(line.points[0]))
    above = np.interp(np.log(line.points[0]), np.log(line.x), line.y)
    assert np.all(np.abs(line.points[1] / above - 1) < 0.05)


def test_figures_are_written_with_units_on_their_axes(found: Fit, tmp_path: Path) -> None:
    names = {path.name for path in found.plot.save(tmp_path)}
    assert names == {
        f"{n}.{s}"
        for n in ("isoflop", "predicted", "residuals", "law-effective-tokens")
        for s in ("png", "svg")
    }
    for figure in (found.plot.law(), found.plot.isoflop(), found.plot.predicted()):
        assert any("nats/token" in axis.get_ylabel() for axis in figure.axes)


def test_residuals_are_each_kinds_own_in_units_of_the_noise(found: Fit) -> None:
    over, quantiles = charts.residuals_chart(found).panels
    assert [series.label for series in over.series] == ["supervised (n 16)", "distillation (n 24)"]
    *parts, diagonal = quantiles.series
    for part in parts:
        normal, deviation = part.points
        assert np.all(np.diff(deviation) >= 0) and 0.7 < np.std(deviation) < 1.5
        assert normal == pytest.approx(-normal[::-1])
    assert np.array_equal(diagonal.x, diagonal.y)


def test_residuals_have_one_sign_and_each_kind_one_look(found: Fit) -> None:
    """Above zero is a run worse than predicted, in both figures; color and marker tell the kind."""
    observed, errors = charts.predicted_chart(found).panels
    over, _ = charts.residuals_chart(found).panels
    assert errors.y.label.startswith("observed \u2212 predicted")
    assert over.y.label.startswith("(observed \u2212 predicted)")
    for both, error in zip(observed.series, errors.series, strict=False):
        predicted, measured = both.points
        assert error.points[1] == pytest.approx(measured - predicted)
    looks = [[(line.kind, line.marker) for line in panel.series[:2]] for panel in (observed, errors, over)]
    assert looks == [[(1, 0), (2, 1)]] * 3


def test_a_token_count_has_one_color_in_every_panel(found: Fit) -> None:
    panels = charts.law_chart(found, "effective-tokens").panels
    looks = {(line.label, line.order, line.marker) for panel in panels for line in panel.series}
    assert len(looks) == len({label for label, *_ in looks})
    assert len({panel.y for panel in panels}) == 1


def test_nothing_overlaps_in_a_corner_plot(found: Fit) -> None:
    corner = found.plot.corner("supervised")
    corner.draw_without_rendering()
    for axis in corner.axes:
        for which in (axis.xaxis, axis.yaxis):
            boxes = [
                label.get_window_extent()
                for label in which.get_ticklabels()
                if label.get_visible() and label.get_text() and axis.axison
            ]
            pairs = [(a, b) for k, a in enumerate(boxes) for b in boxes[k + 1 :]]
            assert not any(a.overlaps(b) for a, b in pairs if a.width and b.width)


def test_the_profile_and_the_corner_show_what_varies(found: Fit) -> None:
    """gamma is pinned here, so it has no column; the interval ends where the deviance crosses."""
    corner = found.plot.corner("supervised")
    assert len(corner.axes) == 5**2
    shown = {axis.get_xlabel() for axis in corner.axes[-5:]}
    assert shown == {f"$\\log_{{10}}\\,{symbol}$" for symbol in ("E", "A", "B", r"\alpha", r"\beta")}
    figure, profile = found.plot.profile("ln k"), found.profile("ln k")
    assert f"{profile.low:.4g} to {profile.high:.4g}" in figure.get_suptitle()
    for draw in (found.plot.corner, found.plot.law):
        with pytest.raises(InputError, match=r"law 'none' was fitted; fitted: .*effective-tokens"):
            draw("none")
