"""The spread of one run around a law: constant among the fitted runs, growing beyond them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from samples_of_calibrations import calibration

from scaling import Calibration, EffectiveTokensLaw, InputError, predict
from scaling.calibration.misfit import Misfit
from scaling.laws.registry import LAWS

FITTED = {"params": (1e7, 1e9), "tokens": (1e9, 1e11), "compute": (1e16, 1e19), "teacher_loss": (2.0, 3.0)}
MISFIT = Misfit(noise=0.003, growth=0.01, better_teacher_growth=0.4, weaker_teacher_growth=0.1, fitted=FITTED)


def test_among_the_runs_it_is_the_noise() -> None:
    sizes, tokens = np.meshgrid(np.geomspace(1e7, 1e8, 4), np.geomspace(1e9, 1e11, 5))
    assert MISFIT.sd(sizes, tokens, 2.5) == pytest.approx(np.full(sizes.shape, 0.003))


@pytest.mark.parametrize(
    ("N", "D", "distance"),
    [
        (1e9 * math.e, 1e9, 1.0),  # larger, at a compute that was fitted
        (1e7, 1e9 / math.e**2, 2.0),
        (1e9, 1e10 * math.e, 1.0),  # both fitted, but never together
        (1e9 * math.e**3, 1e11 * math.e**4, math.sqrt(9 + 16 + (7 + math.log(10)) ** 2)),
    ],
)
def test_beyond_them_it_grows_with_the_distance(N: float, D: float, distance: float) -> None:
    assert float(MISFIT.distance(N, D)) == pytest.approx(distance)
    assert float(MISFIT.sd(N, D)) == pytest.approx(math.hypot(0.003, 0.01 * distance))


def test_better_and_weaker_teachers_count_apart() -> None:
    better, weaker = float(MISFIT.sd(1e8, 1e10, 2.0 / math.e)), float(MISFIT.sd(1e8, 1e10, 3.0 * math.e))
    assert better == pytest.approx(math.hypot(0.003, 0.4))
    assert weaker == pytest.approx(math.hypot(0.003, 0.1))


def test_a_law_without_misfit_and_noise_has_no_spread() -> None:
    assert float(Misfit(noise=0.0).sd(1e12, 1e14, 1.0)) == 0.0


def test_intervals_widen_with_the_distance_and_the_file_keeps_it() -> None:
    fitted = {"params": (1e8, 1e9), "tokens": (2e9, 2e10), "compute": (2e17, 2e19)}
    known = calibration(draws={}, misfit={"supervised": Misfit(noise=0.01, growth=0.02, fitted=fitted)})
    again = Calibration.from_json(known.to_json())
    assert again.misfit == known.misfit
    assert json.loads(known.to_json())["format_version"] == 2

    def width(N: float, D: float) -> float:
        loss = predict(again, student_params=N, student_tokens=D).losses["supervised"]
        assert loss.low is not None and loss.high is not None
        return (loss.high - loss.low) / loss.value / (2 * 1.645)

    assert width(3e8, 1e10) == pytest.approx(0.01, rel=0.1)
    assert width(1e9 * math.e, 2e10) == pytest.approx(math.hypot(0.01, 0.02 * math.sqrt(2)), rel=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": -0.1}, r"misfit\.supervised\.noise: must be a number of 0 or more, not -0\.1"),
        ({"inflation": 0.5}, r"misfit\.supervised\.inflation: must be a number of 1 or more"),
        ({"growth": "far"}, r"misfit\.supervised\.growth: must be a number"),
        ({"fitted": {"params": [2, 1]}}, r"fitted\.params: must be \[smallest, largest\]"),
        ({"fitted": {"depth": [1, 2]}}, r"fitted\.depth"),
        ({"sigma": 1.0}, r"misfit\.supervised: .*'sigma'"),
    ],
)
def test_a_damaged_file_names_the_field(change: dict[str, object], message: str) -> None:
    content = json.loads(calibration(misfit={"supervised": Misfit(noise=0.01)}).to_json())
    content["misfit"]["supervised"] |= change
    with pytest.raises(InputError, match=message):
        Calibration.from_dict(content)


def test_other_laws_of_the_family_add_the_variance_between_them() -> None:
    laws = {"effective-tokens": EffectiveTokensLaw(k=1.4, q=9.0, eps=0.025)}
    options = {"distillation": laws, "draws": {}, "residual_sd": {}}
    plain = calibration(misfit={"effective-tokens": Misfit(noise=0.003)}, **options)
    law, supervised = plain.law("effective-tokens"), plain.supervised
    other = {"k": 2.0, "q": 9.0, "eps": 0.02}
    spread = calibration(
        misfit={"effective-tokens": Misfit(noise=0.003, alternatives={"effective-tokens-sharp": other})},
        **options,
    )
    spread = Calibration.from_json(spread.to_json())
    at = 3e8, 2e10, 2.3
    loss = law.loss(*at, supervised)
    between = np.std([loss, LAWS["effective-tokens-sharp"](**other).loss(*at, supervised)], ddof=1)
    sd = float(spread.run_sd("effective-tokens", loss, *at))
    assert sd == pytest.approx(math.hypot(0.003 * float(loss), float(between)))
    assert sd > float(plain.run_sd("effective-tokens", loss, *at))
