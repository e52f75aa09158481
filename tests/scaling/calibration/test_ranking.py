"""Ranking of calibrations by how well they fit a question."""

from dataclasses import replace

import numpy as np
import pytest

from scaling import Calibration, published
from scaling.calibration.ranking import rank_calibrations, ranking_data, ranking_lines, ranking_table


def test_the_text_asked_about_comes_before_everything_else():
    for text, name in (
        ("refinedweb", "gadre2024-refinedweb"),  # whose runs cover the question; porian2024's do not
        ("Refined Web", "gadre2024-refinedweb"),
        ("OpenWebText2", "porian2024-openwebtext2"),
        ("dolma", "gemstones2025-cooldown"),  # the other one of Dolma carries a warning
    ):
        found = rank_calibrations(1e9, 1e11, text)
        assert found[0].name == name
        assert found[0].text is True and found[-1].text is False
    with_c4 = [match.name for match in rank_calibrations(1e9, 2e10, "C4") if match.text]
    assert (
        "gadre2024-c4" in with_c4 and "gadre2024-redpajama" not in with_c4
    )  # which was only evaluated on it


def test_without_a_text_the_runs_and_the_error_decide():
    found = rank_calibrations(1e9, 2e10)
    assert found[0].name == "busbridge2025-figure1-runs"
    assert {match.name for match in found} == set(published())
    small = rank_calibrations(1e5, 1e6)
    assert small[0].name == "distlaw2026-permissive" and small[1].outside > 40
    unknown = next(match for match in found if match.name == "hoffmann2022")
    assert np.isnan(unknown.error) and "its error is not recorded" in unknown.reasons()


def test_errors_are_those_of_plans():
    match = next(each for each in rank_calibrations(1e9, 2e10) if each.name == "gadre2024-c4")
    fitted = Calibration.load("gadre2024-c4")
    assert match.loss == pytest.approx(float(fitted.supervised.loss(1e9, 2e10)))
    assert match.error >= fitted.misfit["supervised"].noise


def test_sentences_say_why_and_what_cannot_be_answered():
    found = rank_calibrations(1e9, 2e10, "refinedweb")
    first, second = ranking_lines(found, 1e9, 2e10, "refinedweb")
    assert first.startswith(
        "For 1B parameters, 20B tokens, text refinedweb: porian2024-refinedweb fits best: "
    )
    assert "the text asked about, 1.1x outside its runs, error of one run 0.9 %" in first
    assert (
        "answers for direct training, and not whether to distil; of those that can, busbridge2025" in second
    )
    other = ranking_lines(rank_calibrations(1e9, 2e10, "arabic"), 1e9, 2e10, "arabic")
    assert other[1].startswith("No calibration is of the text 'arabic'")
    alone = rank_calibrations(1e9, 2e10, calibrations=[Calibration.load("hoffmann2022")])
    assert ranking_lines(alone, 1e9, 2e10)[1].endswith("not whether to distil.")
    header, rows = ranking_table(found)
    assert len(header) == len(rows[0]) == 6
    assert ranking_data(found, 1e9, 2e10)["calibrations"][0]["reasons"] == found[0].reasons()


def test_a_tokenizer_asked_about_counts_after_the_text():
    base = Calibration.load("gadre2024-c4")
    other = replace(
        base, name="other", provenance=replace(base.provenance, tokenizer="llama-2", warnings=("Old.",))
    )
    found = rank_calibrations(1e9, 2e10, tokenizer="Llama 2", calibrations=[base, other])
    assert [match.name for match in found] == ["other", "gadre2024-c4"]
    assert found[0].reasons().startswith("the tokenizer asked about") and found[0].warned
