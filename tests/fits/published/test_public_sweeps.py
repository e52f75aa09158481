"""Calibrations of sweeps that others published: what ships of them, and that one command makes them again."""

from __future__ import annotations

import os

import numpy as np
import pytest

from fits.published import public_sweeps
from fits.published.__main__ import BUILDERS
from scaling import Calibration, InputError, Question, plan, predict


@pytest.mark.parametrize("name", public_sweeps.SWEEPS)
def test_they_answer_for_direct_training_and_refuse_the_rest(name: str) -> None:
    calibration = Calibration.load(name)
    assert not calibration.distillation and calibration.draw_count == public_sweeps.DRAWS
    misfit = calibration.misfit["supervised"]
    assert 0 < misfit.noise < 0.02 and misfit.held_out > 20
    assert calibration.provenance.corpus and "MIT" in calibration.provenance.source
    (direct,) = plan(Question(student_params=5e8, budget=1e20), calibration).direct
    assert direct.loss.low < direct.loss.value < direct.loss.high < 4
    for question in (
        Question(student_params=5e8, budget=1e20, law="published"),
        Question(student_params=5e8, budget=1e20, teachers=("Qwen/Qwen3-8B-Base",)),
    ):
        with pytest.raises(InputError, match=f"calibration {name} has a supervised law only"):
            plan(question, calibration)
    with pytest.raises(InputError, match="has a supervised law only"):
        predict(calibration, student_params=5e8, student_tokens=1e10, teacher_loss=2.5)


def test_without_tables_the_sets_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(public_sweeps.DIRECTORY, raising=False)
    assert not public_sweeps.available()
    with pytest.raises(InputError, match=r"gadre2024-c4: set DISTLAW_PUBLIC_SWEEPS .* gadre2024_c4\.csv"):
        BUILDERS["gadre2024-c4"]()


@pytest.mark.skipif(
    not os.environ.get(public_sweeps.DIRECTORY), reason="DISTLAW_PUBLIC_SWEEPS names no directory"
)
def test_the_table_gives_what_ships() -> None:
    again, shipped = public_sweeps.build("gadre2024-c4"), Calibration.load("gadre2024-c4")
    N, D = np.geomspace(1e7, 1e10, 4), np.geomspace(1e9, 1e12, 4)
    assert again.supervised.loss(N, D) == pytest.approx(shipped.supervised.loss(N, D), rel=1e-6)
    assert again.misfit["supervised"].noise == pytest.approx(shipped.misfit["supervised"].noise, rel=1e-4)
    for column, values in again.draws["supervised"].items():
        assert np.allclose(values, shipped.draws["supervised"][column], rtol=1e-4)
