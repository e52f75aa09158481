"""Supervised laws other than the power law: derivatives, limits, optima, and plans that stand on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fits import register_law
from fits.estimation.model import SUPERVISED_COORDINATES
from scaling import Calibration, InputError, Provenance, Question, SupervisedLaw, plan
from scaling.laws import (
    AnySupervisedLaw,
    EffectiveTokensLaw,
    FarseerLaw,
    OverTrainingLaw,
    PublishedLaw,
    coefficients,
    compute_optimal,
    optimal_params,
    scaling_exponents,
    tokens_for_loss,
)
from scaling.laws.registry import SUPERVISED_LAWS, check_compatible, supervised_kind
from scaling.repeated_data import excess_params_value

POWER = SupervisedLaw(E=1.7, A=420.0, B=2100.0, alpha=0.34, beta=0.37)
OVER_TRAINING = OverTrainingLaw(E=1.8, a=200.0, b=350.0, eta=0.135)
FARSEER = FarseerLaw(
    a1=-0.124, b1=0.424, alpha=0.123, a2=88.0, b2=-4.2, beta=-0.1, a3=-0.021, b3=1.15, gamma=0.169
)
"""Of the order of published coefficients, for a loss in nats/token."""


@pytest.fixture
def custom() -> Iterator[Any]:
    """Return the power law with gamma = 1, registered as a law of the user's own."""

    def function(N: Any, D: Any, E: Any, A: Any, B: Any, alpha: Any, beta: Any) -> Any:
        return E + A / N**alpha + B / D**beta

    start = {name: value for name, value in coefficients(POWER).items() if name != "gamma"}
    yield register_law("own-power", function, start, kind="supervised")(**start)
    del SUPERVISED_LAWS["own-power"], SUPERVISED_COORDINATES["own-power"]


@pytest.mark.parametrize("law", [OVER_TRAINING, FARSEER])
def test_derivatives_are_exact(law: AnySupervisedLaw) -> None:
    N, D, h = np.array([1e8, 3e9]), np.array([2e10, 1e11]), 1e-6
    found = law.derivatives(N, D)
    signed = getattr(law, "signed", ())

    def moved(name: str, value: float, side: float) -> AnySupervisedLaw:
        change = side * h if name in signed else value * np.expm1(side * h)
        return replace(law, **{name: value + change})  # type: ignore[type-var]

    by_N, own = law.capacity_slopes(np.ones(2), N)
    for name, value in coefficients(law).items():
        sides = [moved(name, float(value), side) for side in (1.0, -1.0)]
        slope = (sides[0].loss(N, D) - sides[1].loss(N, D)) / (2 * h)
        assert found.own[name] == pytest.approx(slope, rel=2e-6, abs=1e-7), name
        floor = (sides[0].log_capacity_excess(N) - sides[1].log_capacity_excess(N)) / (2 * h)
        assert own.get(name, np.zeros(2)) == pytest.approx(0.0 * floor if name == "E" else floor, rel=2e-6)
    for name, (n, d) in {"N": (h, 0.0), "D": (0.0, h)}.items():
        slope = (law.loss(N * np.exp(n), D * np.exp(d)) - law.loss(N * np.exp(-n), D * np.exp(-d))) / (2 * h)
        assert found.inputs[name] == pytest.approx(slope, rel=2e-6)
    floors = (law.log_capacity_excess(N * np.exp(h)) - law.log_capacity_excess(N * np.exp(-h))) / (2 * h)
    assert by_N == pytest.approx(floors, rel=2e-6)


def test_the_over_training_law_is_a_power_law_with_one_exponent() -> None:
    N, D = 3e8, np.geomspace(1e9, 1e12, 7)
    C, M = 6 * N * D, D / N
    law = OVER_TRAINING
    printed = law.E + (law.a * M**law.eta + law.b * M**-law.eta) * C**-law.eta
    assert law.loss(N, D) == pytest.approx(printed, rel=1e-13)
    power = law.power_law()
    assert power.alpha == power.beta == 2 * law.eta and power.gamma == 1.0
    back = OverTrainingLaw.of(power)
    assert list(coefficients(back).values()) == pytest.approx(list(coefficients(law).values()), rel=1e-14)
    best = compute_optimal(law, [1e19, 1e23])
    assert best.tokens / best.params == pytest.approx((law.b / law.a) ** (1 / (2 * law.eta)), rel=1e-12)


def test_farseer_is_the_printed_form_and_has_no_irreducible_loss() -> None:
    law, N, D = FARSEER, np.array([1e8, 1e10]), 1e11
    floor = np.exp(law.a3 * N**law.gamma + law.b3)
    exponent = np.exp(law.a1 * N**law.alpha + law.b1)
    assert law.loss(N, D) == pytest.approx(floor + np.exp(law.a2 * N**law.beta + law.b2) * D**-exponent)
    assert np.exp(law.log_capacity_excess(N)) == pytest.approx(floor, rel=1e-13)
    assert law.E == 0.0 and law.log_capacity_excess(1e40) < -1e3
    with pytest.raises(InputError, match=r"needs the irreducible loss E .* farseer lacks"):
        check_compatible("farseer", ["published", "effective-tokens"])


def test_searched_optima_are_those_of_the_closed_form(custom: AnySupervisedLaw) -> None:
    assert supervised_kind(custom) == "own-power"
    compute = np.array([1e19, 1e23])
    searched, exact = compute_optimal(custom, compute), compute_optimal(POWER, compute)
    assert searched.params == pytest.approx(exact.params, rel=1e-4)
    assert searched.loss == pytest.approx(exact.loss, rel=1e-11)
    assert scaling_exponents(custom) == pytest.approx(scaling_exponents(POWER), rel=1e-4)
    assert optimal_params(custom, 2e10) == pytest.approx(optimal_params(POWER, 2e10), rel=1e-6)
    assert tokens_for_loss(custom, 1e9, [2.4, 1.9]) == pytest.approx(tokens_for_loss(POWER, 1e9, [2.4, 1.9]))
    assert excess_params_value(1e12, 1e11, 1e9, custom) == pytest.approx(
        excess_params_value(1e12, 1e11, 1e9, POWER), rel=1e-6
    )


def calibration(supervised: AnySupervisedLaw, **changes: Any) -> Calibration:
    """Return a calibration with two distillation laws and three draws."""
    laws = {
        "effective-tokens-sharp": EffectiveTokensLaw(k=1.4, q=9.0, eps=0.02, variant="sharp"),
        "published": PublishedLaw(c0=2.5, k=0.95, f1=0.1, A=2e3, B=2e4, alpha=0.34, beta=0.4),
    }
    every: dict[str, AnySupervisedLaw | EffectiveTokensLaw | PublishedLaw] = {
        "supervised": supervised,
        **laws,
    }
    draws = {
        kind: {name: float(value) * np.array([0.99, 1.0, 1.01]) for name, value in coefficients(law).items()}
        for kind, law in every.items()
    }
    provenance = Provenance(source="a test", date="2026-11-30")
    made = {"name": "own", "distillation": laws, "draws": draws, "provenance": provenance, **changes}
    return Calibration(supervised=supervised, **made)


@pytest.mark.parametrize(
    "question",
    [
        Question(student_params=3e8, budget=1e21),
        Question(budget=1e21, scenarios=("teacher_pretraining_and_inference",)),
        Question(student_params=3e8, target_loss=2.35, scenarios=("teacher_pretraining",)),
    ],
)
def test_plans_under_a_law_of_ones_own_are_those_under_the_same_power_law(
    custom: AnySupervisedLaw, question: Question
) -> None:
    own, known = plan(question, calibration(custom)), plan(question, calibration(POWER))
    assert own.headline == known.headline
    for mine, theirs in zip(own.distillations, known.distillations, strict=True):
        assert mine.loss.value == pytest.approx(theirs.loss.value, abs=2e-7)
        assert mine.teacher_params == pytest.approx(theirs.teacher_params, rel=5e-3)
        assert (mine.probability, mine.verdict) == pytest.approx((theirs.probability, theirs.verdict))


def test_a_calibration_refuses_laws_that_cannot_stand_on_its_supervised_law() -> None:
    with pytest.raises(InputError, match="calibration own: the effective-tokens-sharp law needs"):
        calibration(FARSEER)
