"""The calibrations that ship with the package: what they say, and that one command makes them again."""

import json

import numpy as np
import pytest

from fits.published.__main__ import BUILDERS
from scaling import Calibration, published
from scaling.laws import coefficients


def test_every_published_set_loads_and_says_where_it_comes_from():
    assert set(published()) == set(BUILDERS)
    for name in published():
        calibration = Calibration.load(name)
        assert calibration.name == name
        assert calibration.provenance.source
        assert calibration.provenance.command.endswith("python -m fits.published")


@pytest.mark.parametrize("name", ["busbridge2025-figure1-runs", "busbridge2025-figure1-curves"])
def test_the_sets_of_figure_1_are_what_our_fit_makes_of_the_data(name):
    shipped, refitted = Calibration.load(name), BUILDERS[name](draws=20)
    for kind, law in shipped.distillation.items():
        again = refitted.law(kind)
        for loss in (law, again):
            assert set(coefficients(loss)) == set(coefficients(law))
        at = np.meshgrid([143e6, 546e6, 1.82e9, 7.75e9], [4e9, 3e10, 4e11], [1.9, 2.2, 2.7])
        np.testing.assert_allclose(
            law.loss(*at, shipped.supervised), again.loss(*at, shipped.supervised), atol=2e-5
        )
    assert refitted.residual_sd == pytest.approx(shipped.residual_sd, rel=1e-3)


def test_the_fit_to_the_runs_has_the_known_residuals():
    calibration = Calibration.load("busbridge2025-figure1-runs")
    assert calibration.residual_sd["published"] == pytest.approx(0.00766, abs=2e-5)
    assert calibration.residual_sd["effective-tokens-sharp"] == pytest.approx(0.0049, abs=5e-5)
    assert calibration.draw_count >= 1000
    assert calibration.default == "effective-tokens-sharp"
    assert calibration.law_weights == {"effective-tokens-sharp": 1.0, "published": 0.0}


def test_table_6_is_verbatim_and_warned_about():
    calibration = Calibration.load("busbridge2025-table6")
    assert coefficients(calibration.law())["B"] == 24181.0
    assert "misprinted" in calibration.provenance.warnings[0]


def test_the_corrected_chinchilla_fit():
    calibration = Calibration.load("besiroglu2024")
    assert float(calibration.supervised.alpha) == 0.34781
    spread = np.std(calibration.draws["supervised"]["alpha"])
    assert spread == pytest.approx(0.0154, rel=0.15)  # the standard error they print


def test_a_published_file_of_version_1_loads_forever():
    text = (Calibration.load("hoffmann2022")).to_json()
    assert json.loads(text)["format_version"] == 1
    assert Calibration.from_json(text).to_json() == text
