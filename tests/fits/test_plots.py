"""The figures' data, and that they can be drawn and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from samples_of_fits import sweep

from fits import Fit, fit
from fits.plots import data
from scaling import InputError


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(sweep(noise=0.01), draws=40)


def test_law_panels_hold_every_distillation_once(found: Fit) -> None:
    panels = data.law_panels(found, "effective-tokens")
    assert [panel.title for panel in panels] == ["student of 8k", "student of 30k", "student of 100k"]
    curves = [curve for panel in panels for curve in panel.curves]
    assert sum(len(curve.run_x) for curve in curves) == 24
    assert all(np.all(curve.low <= curve.high) for curve in curves)


def test_isoflop_runs_keep_their_residual(found: Fit) -> None:
    curves = data.isoflop_curves(found).curves
    assert sum(len(curve.run_x) for curve in curves) == 16
    curve = max(curves, key=lambda curve: len(curve.run_x))
    above = np.interp(np.log(curve.run_x), np.log(curve.x), curve.y)
    assert np.all(np.abs(curve.run_y / above - 1) < 0.05)


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
    parts = data.residuals(found)
    assert [(part.label, len(part.deviation)) for part in parts] == [("supervised", 16), ("distillation", 24)]
    assert all(np.all(np.diff(part.deviation) >= 0) and 0.7 < np.std(part.deviation) < 1.5 for part in parts)
    assert parts[0].normal == pytest.approx(-parts[0].normal[::-1])


def test_the_profile_and_the_corner_show_what_varies(found: Fit) -> None:
    """gamma is pinned here, so it has no column; the interval ends where the deviance crosses."""
    corner = found.plot.corner("supervised")
    assert len(corner.axes) == 5**2
    assert {axis.get_xlabel().split()[-1] for axis in corner.axes[-5:]} == {"E", "A", "B", "alpha", "beta"}
    (axis,) = found.plot.profile("ln k").axes
    profile = found.profile("ln k")
    assert f"{profile.low:.4g} to {profile.high:.4g}" in axis.get_title()
    for draw in (found.plot.corner, found.plot.law):
        with pytest.raises(InputError, match=r"law 'none' was fitted; there are .*effective-tokens"):
            draw("none")
