"""Learning curves: known limits, values of the digest, and agreement of independent routes."""

from __future__ import annotations

import numpy as np
import pytest

from scaling import InputError
from scaling.perceptron import distributions as d
from scaling.perceptron import learning_curves as curves
from scaling.perceptron.capacity import capacity
from scaling.perceptron.learning_curves import (
    field_nodes,
    generalization_error,
    largest_margin,
    learning_curve,
    sign_constrained,
    stationarity,
    unconstrained,
    with_distribution,
)
from scaling.perceptron.optimal_distribution import OptimalStudent, optimal_student
from scaling.perceptron.transport import target_weights

TEACHER = d.lognormal(1.0)
ALPHA = np.array([0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0])
FREE = np.array([0.420, 0.376, 0.329, 0.266, 0.189, 0.114, 0.061])
FIXED = np.array([0.324, 0.262, 0.209, 0.162, 0.115, 0.077, 0.047])
IN_FAMILY = np.array([0.273, 0.248, 0.208, 0.162, 0.114])
"""Errors at ALPHA for a lognormal teacher with s = 1, from an independent computation: with the teacher's
distribution, and with the best lognormal distribution at each load."""


@pytest.fixture(scope="module")
def fixed() -> curves.Overlaps:
    return with_distribution(TEACHER)


@pytest.fixture(scope="module")
def optimal() -> OptimalStudent:
    return optimal_student([0.01, *ALPHA], TEACHER)


def test_the_unconstrained_curve() -> None:
    found = learning_curve(ALPHA, unconstrained())
    np.testing.assert_allclose(found.error, FREE, atol=6e-4)
    late = learning_curve(np.geomspace(32, 1024, 6), unconstrained())
    assert float(late.alpha[0] * late.error[0]) == pytest.approx(0.4996, abs=1e-4)
    np.testing.assert_allclose(late.alpha * late.error, 0.5005, atol=1e-3)  # eps_g -> 0.50 / alpha


def test_the_teachers_distribution_helps_the_student(fixed: curves.Overlaps) -> None:
    """The tolerance is the difference of two ways to represent the tail by 400 quantiles."""
    found = learning_curve(ALPHA, fixed)
    np.testing.assert_allclose(found.error, FIXED, atol=0.009)
    np.testing.assert_allclose(found.error[3:], FIXED[3:], atol=0.0015)
    assert (found.error < FREE).all()


def test_the_margin_is_largest_where_its_derivative_is_zero(fixed: curves.Overlaps) -> None:
    fields, lam = field_nodes(0.0), np.geomspace(0.2, 2.0, 200)
    R, M = fixed(lam)
    by_derivative = np.interp(0.0, stationarity(0.5, lam, R, M, fields), R)
    assert learning_curve(0.5, fixed).overlap[0] == pytest.approx(by_derivative, abs=1e-4)


def test_the_overlaps_are_those_of_ordered_samples(fixed: curves.Overlaps) -> None:
    rng, size = np.random.default_rng(0), 400_000
    w_T = np.tile(target_weights(TEACHER, 400), size // 400)
    w_S = np.sort(w_T)
    for lam in (0.1, 0.8, 3.0):
        g = rng.standard_normal(size)
        w = np.empty(size)
        w[np.argsort(g + lam * w_T)] = w_S
        R, M = fixed(np.array([lam]))
        assert R[0] == pytest.approx(np.mean(w * w_T), abs=0.006)
        assert M[0] == pytest.approx(np.mean(w * g), abs=0.006)
        signed = np.maximum(g + lam * w_T, 0.0)
        signed /= np.sqrt(np.mean(signed**2))
        R, M = sign_constrained(TEACHER)(np.array([lam]))
        assert R[0] == pytest.approx(np.mean(signed * w_T), abs=0.006)
        assert M[0] == pytest.approx(np.mean(signed * g), abs=0.006)


@pytest.mark.parametrize("q", [d.lognormal(1.0), d.normal(), d.uniform()], ids=lambda q: q.name)
def test_without_a_teacher_the_load_at_a_margin_is_the_capacity(q: d.WeightDistribution) -> None:
    """At lambda = 0 the margin equation is alpha_c(kappa) = alpha_0(kappa) J^2."""
    no_teacher = np.zeros(1)
    _, M = with_distribution(q, grid=150)(curves.TABULATED[:1])
    of_grid = d.WeightDistribution.from_weights("grid", target_weights(q, 150))
    assert M[0] == pytest.approx(of_grid.gaussian_overlap, abs=1e-5)
    _, M = sign_constrained(d.lognormal(1.0))(no_teacher)
    for kappa in (0.2, 1.0):
        load = float(capacity(d.rectified_normal(), kappa))
        assert largest_margin(load, no_teacher, M, field_nodes(0.0))[0] == pytest.approx(kappa, abs=1e-9)


def test_signs_lie_between_nothing_and_the_distribution(fixed: curves.Overlaps) -> None:
    signs, free = learning_curve(ALPHA, sign_constrained(TEACHER)), learning_curve(ALPHA, unconstrained())
    distribution = learning_curve(ALPHA, fixed)
    assert (signs.error < free.error).all()
    assert (distribution.error < signs.error).all()
    start = learning_curve(1e-4, sign_constrained(TEACHER)).overlap[0]
    mean = float(target_weights(TEACHER, 400).mean())
    assert start == pytest.approx(mean / np.sqrt(np.pi), abs=0.01)  # rectified noise, half of it 0


def test_at_no_load_the_student_is_a_draw_from_its_distribution(fixed: curves.Overlaps) -> None:
    mean = float(target_weights(TEACHER, 400).mean())
    assert mean == pytest.approx(np.exp(-0.5), abs=0.02)
    assert fixed(curves.TABULATED[:1])[0][0] == pytest.approx(mean**2, abs=1e-3)


def test_the_best_distribution_is_better_than_any_lognormal(
    optimal: OptimalStudent, fixed: curves.Overlaps
) -> None:
    best = optimal.curve.error[1:]
    assert (best[:5] < IN_FAMILY).all()
    assert (best[:5] > IN_FAMILY - 0.016).all()
    of_teacher = learning_curve(ALPHA, fixed)
    assert (best < of_teacher.error).all()
    assert (of_teacher.error < FREE).all()


def test_the_best_distribution_goes_from_a_point_to_that_of_the_teacher(optimal: OptimalStudent) -> None:
    mean = float(target_weights(TEACHER, 400).mean())
    assert optimal.curve.overlap[0] == pytest.approx(mean, abs=0.005)
    spread = [np.sqrt(1 - each.mean**2) for each in optimal.distributions]
    assert spread[0] < 0.12
    assert (np.diff(spread) > 0).all()
    assert spread[-1] == pytest.approx(np.sqrt(1 - mean**2), abs=0.02)


@pytest.mark.parametrize("number", [1, 4])
def test_a_student_of_the_best_distribution_generalizes_as_promised(
    optimal: OptimalStudent, number: int
) -> None:
    """The maximum of kappa over lambda, computed for that distribution alone, has the same R."""
    alpha = float(optimal.curve.alpha[number])
    found = learning_curve(alpha, with_distribution(TEACHER, optimal.distributions[number]))
    assert found.overlap[0] == pytest.approx(optimal.curve.overlap[number], abs=2.5e-3)
    assert found.margin[0] == pytest.approx(optimal.curve.margin[number], rel=0.01)


@pytest.mark.parametrize(("alpha", "best", "error"), [(0.1, 0.4, 0.273), (0.25, 0.7, 0.248)])
def test_a_lognormal_family_has_its_best_member_inside(alpha: float, best: float, error: float) -> None:
    """Where data are scarce a narrower distribution than the teacher's, of s = 1, is better."""
    errors = [
        learning_curve(alpha, with_distribution(TEACHER, d.lognormal(s), grid=200)).error[0]
        for s in (best / 2, best, 1.5 * best)
    ]
    assert errors[1] == pytest.approx(error, abs=3e-3)
    assert errors[1] < min(errors[0], errors[2])


def test_generalization_error_by_sampling() -> None:
    rng, size = np.random.default_rng(3), 200_000
    for R, noise in ((0.3, 0.0), (0.9, 0.0), (0.8, 0.5)):
        z, other = rng.standard_normal((2, size))
        student = R * z + np.sqrt(1 - R**2) * other
        wrong = np.mean(np.sign(z + noise * rng.standard_normal(size)) != np.sign(student))
        error = float(generalization_error(R, noise))
        assert wrong == pytest.approx(error, abs=4 * np.sqrt(error * (1 - error) / size))


def test_noise_on_labels_slows_learning_and_ends_in_a_negative_margin() -> None:
    clean = learning_curve(ALPHA, unconstrained())
    noisy = learning_curve(ALPHA, unconstrained(), noise=0.3)
    assert (noisy.error > clean.error).all()
    assert (clean.margin > 0).all()
    assert noisy.margin[-1] < 0 < noisy.margin[0]
    barely = learning_curve(ALPHA, unconstrained(), noise=1e-3)
    np.testing.assert_allclose(barely.error, clean.error, atol=2e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: learning_curve(0.0, unconstrained()), "alpha: a load is a positive number"),
        (lambda: learning_curve([1.0, np.nan], unconstrained()), "alpha: a load is a positive number"),
        (lambda: learning_curve([], unconstrained()), "alpha: a load is a positive number"),
        (lambda: learning_curve(1.0, unconstrained(), noise=-1.0), "noise: a standard deviation is 0 or more, not -1"),
        (lambda: generalization_error(1.01), "from -1 to 1"),
        (lambda: with_distribution(d.normal().scaled(2.0)), "second moment must be 1, not 4"),
        (lambda: sign_constrained(d.normal().scaled(2.0)), "second moment must be 1, not 4"),
        (lambda: optimal_student(1.0, d.WeightDistribution.from_weights("ones", [1.0, 1.0])), "all equal"),
        (lambda: with_distribution(TEACHER, d.WeightDistribution.from_weights("ones", [1.0])), "equal weights"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
