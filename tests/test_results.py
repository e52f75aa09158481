"""Results speak alike: ``to_frame()``, ``to_dict()``, and ``plot`` as an accessor that can be called."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

import fits
from fits import datasets
from scaling import Calibration, Question, frontier, plan
from scaling.errors import InputError
from scaling.figures.figure import Figure
from sweeps import shipped


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """One of each kind; the sweep's own are in tests/sweeps/test_api.py."""
    known = Calibration.load("busbridge2025-figure1-runs")
    question = Question(student_params="1B", budget="1e21")
    runs = datasets.figure1()
    methods = shipped("methods")
    few = methods[methods["method"].isna() | methods["method"].isin(["forward-kl", "taid"])]
    return {
        "plan": plan(question),
        "frontier": frontier(question, [1e20, 1e21]),
        "calibration": known,
        "calibration without draws": Calibration.load("busbridge2025-table6"),
        "fit": fits.fit(runs, laws=["effective-tokens"], supervised=known, draws=20, held_out=False),
        "laws": fits.compare_laws(
            runs.iloc[::3], ["effective-tokens", "effective-tokens-capacity"], supervised=known
        ),
        "methods": fits.compare_methods(few, draws=20),
    }


KINDS = ["plan", "frontier", "calibration", "calibration without draws", "fit", "laws", "methods"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_a_table_and_a_dictionary(kind: str, results: dict[str, Any]) -> None:
    table = results[kind].to_frame()
    assert isinstance(table, pd.DataFrame)
    assert len(table)
    assert json.loads(json.dumps(results[kind].to_dict(), allow_nan=False))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "calibration without draws"])
def test_a_result_draws_its_main_figure_and_others_by_name(kind: str, results: dict[str, Any]) -> None:
    plot = results[kind].plot
    assert plot.main in plot.names()
    assert isinstance(plot(), Figure)
    assert getattr(plot.on_dark, plot.main)().dark
    assert plot(plot.main, dark=True).dark
    with pytest.raises(InputError, match=f"no figure 'histogram'; there are .*{plot.main}"):
        plot("histogram")


def test_what_a_figure_takes_is_passed_on(results: dict[str, Any]) -> None:
    assert results["fit"].plot("profile", "ln k").axes
    assert results["calibration"].plot.capacity_gap(students=(1e9,)).axes
    assert "capacity_gap" in dir(results["calibration"].plot)
    with pytest.raises(AttributeError, match=r"no figure .histogram.; there are .*capacity_gap"):
        results["calibration"].plot.histogram  # noqa: B018


def test_a_calibration_is_read_back_from_its_dictionary(results: dict[str, Any]) -> None:
    calibration = results["calibration"]
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert again.to_json() == calibration.to_json()


def test_coefficients_have_the_intervals_of_the_draws(results: dict[str, Any]) -> None:
    table = results["calibration"].to_frame()
    of_law = table[table["law"] == results["calibration"].default]
    assert len(of_law)
    assert (of_law["low"] <= of_law["high"]).all()
    fitted = results["fit"].to_frame().set_index(["law", "name"])
    assert fitted.loc[("effective-tokens", "k"), "value"] == results["fit"].distillation["effective-tokens"].k
