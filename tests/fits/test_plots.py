"""The figures' data, and that they can be drawn and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from samples_of_fits import sweep

from fits import Fit, fit
from fits.plots import data


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(sweep(noise=0.01), draws=40)


def test_law_panels_hold_every_distillation_once(found: Fit) -> None:
    panels = data.law_panels(found)
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
        f"{n}.{s}" for n in ("isoflop", "predicted", "law-effective-tokens") for s in ("png", "svg")
    }
    for figure in (found.plot.law(), found.plot.isoflop(), found.plot.predicted()):
        assert any("nats/token" in axis.get_ylabel() for axis in figure.axes)
