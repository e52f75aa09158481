"""Comparing laws: the published comparison reproduced, one's own law among them, and small tables."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from samples_of_fits import FIGURE1, TRUTH, sweep

from fits import Objective, fit
from fits.checks.comparison.compare_laws import LAWS, compare_laws
from fits.checks.comparison.scores import TABLE_SPLIT
from fits.estimation.laws.custom_law import register_law
from scaling import InputError, SupervisedLaw


def test_the_comparison_of_the_three_laws_on_figure_1(figure1: pd.DataFrame) -> None:
    """Five cross-validations inside ``fit`` and the authors' own split; every law wins somewhere."""
    least_squares = Objective(delta=np.inf, priors=False, in_nats=True)
    found = compare_laws(
        figure1, LAWS[:3], supervised=FIGURE1, objective=least_squares, thresholds=(2.1, 2.3, 2e10), starts=16
    )
    expected = {  # fit, size out, cell out, weak -> strong, strong -> weak, D < 20B -> rest, L_S > 2.3 -> rest
        "published": (0.0078, 0.0094, 0.0100, 0.0741, 0.0102, 0.0112, 0.0070),
        "effective-tokens": (0.0051, 0.0061, 0.0060, 0.0053, 0.0083, 0.0048, 0.0084),
        "effective-tokens-capacity": (0.0040, 0.0044, 0.0045, 0.0037, 0.0065, 0.0057, 0.0134),
    }
    for score in found.scores:
        assert [score.rmse, *score.held_out.values()] == pytest.approx(expected[score.law], abs=6e-5)
    won = found.wins()
    assert TABLE_SPLIT in won["published"]
    assert "few to many tokens" in won["effective-tokens"]
    assert "size out" in won["effective-tokens-capacity"]
    assert "best on" in str(found)


def test_the_sharp_variant_on_figure_1(figure1: pd.DataFrame) -> None:
    """Its published cross-validations; on the last it beats the published law, having been chosen after it."""
    found = compare_laws(
        figure1, ["effective-tokens-sharp"], supervised=FIGURE1, thresholds=(2.1, 2.3, 2e10), starts=4,
        objective=Objective(delta=np.inf, priors=False, in_nats=True),
    )  # fmt: skip
    (score,) = found.scores
    expected = (0.0048, 0.0058, 0.0057, 0.0042, 0.0061, 0.0049, 0.0067)
    assert [score.rmse, *score.held_out.values()] == pytest.approx(expected, abs=6e-5)
    assert found.evidence is None  # one law has nothing to be weighed against


def test_the_law_that_made_the_runs_wins() -> None:
    found = compare_laws(sweep(noise=0.003), ["effective-tokens", "published"], starts=8)
    cell = found._repr_html_()
    assert cell.count("<table>") == 2 and "<pre>" not in cell
    assert all(f">{name}</td>" in cell for name in (*found.criteria(), "starts that agree"))
    assert "<li>effective-tokens: best on" in cell
    assert "BIC" in found.wins()["effective-tokens"]
    assert np.isfinite(found.scores[0].mean)


def soft_maximum(N_S, D_S, L_T, supervised: SupervisedLaw, boost, sharpness):  # type: ignore[no-untyped-def]
    floor = supervised.loss(N_S, boost * D_S)
    return np.exp(np.logaddexp(sharpness * np.log(floor), sharpness * np.log(L_T)) / sharpness)


def test_a_law_of_ones_own() -> None:
    register_law("soft-maximum", soft_maximum, {"boost": 2.0, "sharpness": 20.0})
    found = fit(sweep(noise=0.003), laws=["soft-maximum"], draws=20)
    assert found.primary_estimate.status == "converged"
    assert found.distillation["soft-maximum"].boost > 1  # type: ignore[attr-defined]
    assert found.calibration.sampled_law().loss(
        1e5, 1e6, 4.0, found.calibration.sampled_supervised()
    ).shape == (20, 1)
    there = pickle.loads(
        pickle.dumps(found.primary_estimate.model)
    )  # as an executor sends it to another process
    assert np.array_equal(
        there.evaluate_at(found.primary_estimate.theta)[0], found.primary_estimate.predicted
    )
    with pytest.raises(InputError, match="positive value"):
        register_law("none", soft_maximum, {"boost": 0.0})


def test_copies_of_a_run_are_no_evidence_for_a_law() -> None:
    rng = np.random.default_rng(1)
    once = sweep(noise=0.02, seed=1)
    copies = pd.concat([once] * 3, ignore_index=True).assign(run=[f"c{i}" for i in range(120)])
    copies["loss"] *= np.exp(0.001 * rng.standard_normal(120))
    laws = ["effective-tokens"]
    one, three = (compare_laws(frame, laws, starts=4) for frame in (once, copies))
    assert "distillation replicates are averaged" in str(three)
    assert three.scores[0].bic == pytest.approx(one.scores[0].bic, abs=2.0)
    assert three.scores[0].held_out == pytest.approx(one.scores[0].held_out, rel=0.05)


def test_designs_that_cannot_judge_a_law_are_refused() -> None:
    only = sweep(noise=0.003).query("kind == 'distillation'")
    with pytest.raises(InputError, match="distillations only"):
        compare_laws(only)
    with pytest.raises(InputError, match="8 distillations cannot determine the 8 free coeff"):
        compare_laws(only.head(8), ["published"], supervised=TRUTH)
    with pytest.raises(InputError, match="laws must be a list of names"):
        compare_laws(only, "published", supervised=TRUTH)
    found = compare_laws(only, supervised=TRUTH, starts=4)
    assert [score.law for score in found.scores] == list(LAWS[1:])
    assert "the supervised law is given by the caller" in str(found)
    assert "not compared: only 2 student token counts" in str(found)


def test_no_distillations_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no distillations to compare"):
        compare_laws(sweep().query("kind == 'supervised'"))
