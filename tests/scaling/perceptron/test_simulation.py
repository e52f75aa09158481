"""Simulated perceptrons against the theory: solvable loads, and overlaps with a teacher."""

from __future__ import annotations

import numpy as np
import pytest

from scaling import InputError
from scaling.perceptron import distributions as d
from scaling.perceptron.capacity import capacity, unconstrained_capacity
from scaling.perceptron.disco import Settings
from scaling.perceptron.learning_curves import (
    Overlaps,
    learning_curve,
    sign_constrained,
    unconstrained,
    with_distribution,
)
from scaling.perceptron.simulation import (
    FREE,
    SIGNS,
    Trial,
    learn_over_loads,
    learn_random_labels,
    learn_teacher,
)

TEACHER = d.lognormal(1.0)
QUICK = Settings(steps=1500)
GATED = [d.normal(), d.uniform(), d.normal(0.7), d.lognormal(1.0)]


def margin_at_capacity(alpha: float, J: float) -> float:
    """Return kappa with alpha_0(kappa) J^2 = alpha."""
    margins = np.linspace(0, 4, 4001)
    return float(np.interp(-alpha, -unconstrained_capacity(margins) * J**2, margins))


@pytest.mark.parametrize("q", GATED, ids=lambda q: q.name)
def test_labels_are_learned_below_the_capacity_and_not_above(q: d.WeightDistribution) -> None:
    limit = float(capacity(q))
    below = learn_random_labels(q, 0.4 * limit, seed=0, weights=200, settings=QUICK)
    assert below.solved
    assert below.margin < 1.15 * margin_at_capacity(0.4 * limit, q.gaussian_overlap)
    assert np.mean(below.weights**2) == pytest.approx(1)
    assert not learn_random_labels(q, 1.2 * limit, seed=0, weights=200, settings=QUICK).solved


@pytest.mark.slow
@pytest.mark.parametrize("q", GATED, ids=lambda q: q.name)
def test_the_gate_at_400_weights(q: d.WeightDistribution) -> None:
    limit = float(capacity(q))
    for fraction, solvable in ((0.4, True), (0.6, True), (1.2, False)):
        found = [learn_random_labels(q, fraction * limit, seed) for seed in range(4)]
        assert [each.solved for each in found] == [solvable] * 4
        if solvable:
            theory = margin_at_capacity(fraction * limit, q.gaussian_overlap)
            assert 0.35 * theory < np.mean([each.margin for each in found]) < 1.05 * theory


def mean_overlap(trials: list[Trial]) -> float:
    return float(np.mean([each.overlap for each in trials]))


@pytest.mark.parametrize("student", [FREE, SIGNS, "fixed"])
def test_a_student_generalizes_as_the_theory_says(student: str) -> None:
    """The sign-constrained curve has no published formula: this is its check."""
    theory: dict[str, Overlaps] = {FREE: unconstrained(), SIGNS: sign_constrained(TEACHER, 300)}
    overlaps = theory[student] if student in theory else with_distribution(TEACHER, grid=300)
    constraint = student if student in theory else TEACHER
    for alpha in (0.5, 1.0):
        trials = learn_over_loads(TEACHER, constraint, [alpha], range(4), weights=300, settings=QUICK)
        assert mean_overlap(trials) == pytest.approx(learning_curve(alpha, overlaps).overlap[0], abs=0.04)
        assert all(each.margin > 0 for each in trials)


@pytest.mark.slow
def test_the_sign_constrained_curve_over_the_load() -> None:
    alphas = [0.1, 0.25, 0.5, 1.0, 2.0]
    theory = learning_curve(alphas, sign_constrained(TEACHER))
    for alpha, R, kappa in zip(alphas, theory.overlap, theory.margin, strict=True):
        trials = learn_over_loads(TEACHER, SIGNS, [alpha], range(8))
        assert mean_overlap(trials) == pytest.approx(R, abs=0.025)
        assert 0.8 * kappa < np.mean([each.margin for each in trials]) < 1.02 * kappa


@pytest.mark.slow
def test_the_teachers_distribution_over_the_load() -> None:
    """Theory and an independent simulation differ by up to .05 here, as do seeds at the lowest load."""
    alphas, independent = [0.25, 0.5, 1.0, 2.0], [0.72, 0.81, 0.872, 0.928]
    theory = learning_curve(alphas, with_distribution(TEACHER)).overlap
    for alpha, expected, other in zip(alphas, theory, independent, strict=True):
        R = mean_overlap(learn_over_loads(TEACHER, TEACHER, [alpha], range(6)))
        assert pytest.approx(expected, abs=0.04) == R
        assert pytest.approx(other, abs=0.08) == R


def test_a_normal_teacher_with_signs_of_its_own() -> None:
    theory = learning_curve(1.0, sign_constrained(d.normal(), 300)).overlap[0]
    trials = learn_over_loads(d.normal(), SIGNS, [1.0], range(3), weights=300, settings=QUICK)
    assert mean_overlap(trials) == pytest.approx(theory, abs=0.04)


def test_a_simulation_is_its_seed() -> None:
    again = [
        learn_teacher(TEACHER, TEACHER, 0.3, seed, weights=80, settings=Settings(steps=50))
        for seed in (1, 1, 2)
    ]
    assert again[0] == again[1] != again[2]


def test_noisy_labels_are_noisier() -> None:
    clean, noisy = (
        learn_teacher(TEACHER, FREE, 0.5, 0, weights=200, noise=noise, settings=QUICK) for noise in (0.0, 1.0)
    )
    assert noisy.overlap < clean.overlap
    assert noisy.error > clean.error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: learn_teacher(TEACHER, "free", 1.0, 0), "student: a distribution, 'unconstrained' or 'signs', not 'free'"),
        (lambda: learn_teacher(TEACHER, FREE, 1e-4, 0), "less than one pattern"),
        (lambda: learn_random_labels(TEACHER, float("inf"), 0), "alpha: inf"),
        (lambda: learn_random_labels(TEACHER.scaled(2.0), 0.3, 0), "second moment must be 1, not 4"),
        (lambda: learn_teacher(TEACHER, FREE, 1.0, 0, noise=-1.0), "noise: a standard deviation"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
