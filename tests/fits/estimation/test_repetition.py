"""Constants of repeated data: recovered from simulated truth, and used by plans."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from fits import fit
from fits.estimation.joint import Recipe
from fits.estimation.repetition import fit_repetition, repeats_data
from fits.table.runs import validate
from scaling import Calibration, InputError, Question, SupervisedLaw, plan
from scaling.laws import compute_optimal
from scaling.repeated_data import (
    REPETITION_CONSTANT,
    Repetition,
    excess_params_value,
    optimal_params,
    repeated_tokens_value,
)

LAW = SupervisedLaw(E=1.8, A=480.0, B=2085.0, alpha=0.348, beta=0.366)
RECIPE = Recipe(laws=(), pins={"gamma": 1.0}, starts=16)


def sweep(R_D: float, R_N: float, noise: float = 0.004, seed: int = 0) -> pd.DataFrame:
    """Five sizes on five token counts, of all different tokens and of 1e9 and 1e8 unique ones."""
    rng = np.random.default_rng(seed)
    rows = [
        (N, D, min(U, D))
        for N in (1e7, 4e7, 1.6e8, 6.4e8, 2.5e9)
        for D in (4e8, 1.6e9, 6.4e9, 2.56e10, 1e11)
        for U in (1e8, 1e9, np.inf)
        if U < D or np.inf == U
    ]
    table = pd.DataFrame(rows, columns=["params", "tokens", "unique_tokens"])
    N, D, U = (table[name].to_numpy() for name in table)
    loss = LAW.loss(excess_params_value(N, D, U, LAW, R_N), repeated_tokens_value(D, U, R_D))
    return table.assign(loss=loss * np.exp(noise * rng.standard_normal(len(table))))


def test_the_parameters_that_tokens_call_for_are_compute_optimal() -> None:
    for C in (1e18, 1e22):
        best = compute_optimal(LAW, C)
        assert optimal_params(LAW, best.tokens) == pytest.approx(best.params)


def test_nothing_is_excess_or_repeated_in_the_first_epoch() -> None:
    assert excess_params_value(1e10, 1e8, 1e8, LAW) == 1e10
    assert repeated_tokens_value(1e8, 1e8, 3.0) == 1e8
    many = repeated_tokens_value(1e30, 1e8, 3.0)
    assert many == pytest.approx(4e8)  # U (1 + R_D*)
    assert excess_params_value(1e30, 1e12, 1e8, LAW, 2.0) == pytest.approx(3 * optimal_params(LAW, 1e8))


@pytest.mark.parametrize(("R_D", "R_N"), [(15.4, 5.3), (6.0, 12.0), (30.0, 2.0)])
def test_the_constants_are_recovered(R_D: float, R_N: float) -> None:
    inside = []
    for seed in range(8):
        _, found = fit_repetition(validate(sweep(R_D, R_N, seed=seed)), RECIPE)
        assert found.tokens == pytest.approx(R_D, rel=0.12)
        assert found.params == pytest.approx(R_N, rel=0.25)
        inside += [found.tokens_interval[0] < R_D < found.tokens_interval[1]]
        inside += [found.params_interval[0] < R_N < found.params_interval[1]]
    assert np.mean(inside) >= 0.7  # of nominal 0.9; 16 intervals


def test_a_fit_with_repeats_finds_the_law_and_ships_the_constants() -> None:
    table = sweep(6.0, 12.0)
    found = fit(table, gamma=1.0, draws=40, held_out=False)
    assert found.repetition is not None
    assert found.repetition.tokens == pytest.approx(6.0, rel=0.1)
    assert float(found.supervised.alpha) == pytest.approx(LAW.alpha, abs=0.02)
    assert np.sqrt(np.mean((found.table["residual"] / found.table["loss"]) ** 2)) < 0.006
    without = fit(table.drop(columns="unique_tokens"), gamma=1.0, draws=20, held_out=False)
    assert without.repetition is None
    assert np.sqrt(np.mean((without.table["residual"] / without.table["loss"]) ** 2)) > 0.03
    assert json.loads(found.report("json"))["repetition"]["tokens"] == found.repetition.tokens
    assert "R_D* " in found.report() and "Repeated data" in found.report("html")
    again = Calibration.from_json(found.calibration.to_json())
    assert again.repetition == found.repetition


def test_plans_use_the_fitted_constant() -> None:
    fitted = fit(sweep(6.0, 12.0), gamma=1.0, draws=20, held_out=False).calibration
    assert fitted.repetition is not None
    answer = plan(Question(student_params=1e9, budget=1e21, student_unique_tokens=2e9), fitted)
    (direct,) = answer.direct
    seen = repeated_tokens_value(direct.tokens, 2e9, fitted.repetition.tokens)
    assert direct.loss.value == pytest.approx(float(fitted.supervised.loss(1e9, seen)))
    published = repeated_tokens_value(direct.tokens, 2e9)
    assert seen < 0.7 * published
    assert any(f"R* = {fitted.repetition.tokens:.1f} [" in text for text in answer.assumptions)


def test_distillation_is_planned_with_the_fitted_constant_too() -> None:
    shipped = Calibration.load("busbridge2025-figure1-runs")
    worth = Repetition(
        tokens=3.0, tokens_interval=(2.5, 3.5), params=5.0, params_interval=(4.0, 6.0), runs=20
    )
    from dataclasses import replace

    question = Question(
        student_params=1e9, budget=1e22, student_unique_tokens=5e9, teacher_unique_tokens=5e9,
        scenarios=("teacher_pretraining_and_inference",),
    )  # fmt: skip
    (fewer,) = plan(question, replace(shipped, repetition=worth)).distillations
    (more,) = plan(question, shipped).distillations
    taught = repeated_tokens_value(fewer.teacher_tokens, 5e9, 3.0)
    assert fewer.teacher_loss == pytest.approx(float(shipped.supervised.loss(fewer.teacher_params, taught)))
    seen = repeated_tokens_value(fewer.tokens, 5e9, 3.0)
    expected = shipped.law().loss(1e9, seen, fewer.teacher_loss, shipped.supervised)
    assert fewer.loss.value == pytest.approx(float(expected))
    assert fewer.loss.value > more.loss.value
    assert fewer.teacher_tokens < more.teacher_tokens  # repeats are worth less, parameters more


def test_too_few_repeats_keep_the_published_constants() -> None:
    table = sweep(6.0, 12.0)
    few = validate(table[(table["tokens"] <= table["unique_tokens"]) | (table.index < 4)])
    assert not repeats_data(few)
    assert not repeats_data(validate(table.drop(columns="unique_tokens")))
    assert Calibration.load("besiroglu2024").repetition_constant == REPETITION_CONSTANT


@pytest.mark.parametrize(
    "value", [{"tokens": -1.0}, {"tokens": "many"}, {"tokens": 3.0}, {"tokens_interval": [5, 2]}, [3.0]]
)
def test_constants_that_are_none_are_rejected(value: object) -> None:
    content = json.loads(Calibration.load("hoffmann2022").to_json()) | {"repetition": value}
    with pytest.raises(InputError, match="repetition"):
        Calibration.from_dict(content)
