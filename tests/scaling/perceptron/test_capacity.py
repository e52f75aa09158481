"""Capacities: published values, identities of the overlap J, and distributions that are refused."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from scaling import InputError
from scaling.perceptron import capacity as capacity_module
from scaling.perceptron import distributions as d
from scaling.perceptron import learning_curves
from scaling.perceptron.capacity import (
    balanced_lognormal_capacity,
    capacity,
    population_capacity,
    unconstrained_capacity,
)
from scaling.perceptron.transport import target_weights

TABLE = [
    (d.normal(), 1.0, 2.0),
    (d.normal(0.7), 0.7, 0.98),
    (d.uniform(), 0.977205, 1.909859),
    (d.laplace(), 0.981344, 1.926072),
    (d.student_t(5.0), 0.983352, 1.933962),
    (d.binary(), 0.797885, 1.273240),
    (d.rectified_normal(), np.sqrt(0.5), 1.0),
    (d.half_normal(), 0.580364, 0.673644),
    (d.lognormal(1.0), np.exp(-0.5), 0.735759),
    (d.lognormal(0.5), 0.5 * np.exp(-0.125), 0.5 * np.exp(-0.25)),
    (d.ternary(0.1), None, 0.8510),
    (d.ternary(0.5), None, 1.6157),
]


@pytest.mark.parametrize(("q", "J", "at_0"), TABLE, ids=[row[0].name for row in TABLE])
def test_capacities_of_the_table(q: d.WeightDistribution, J: float | None, at_0: float) -> None:
    assert float(capacity(q)) == pytest.approx(at_0, abs=1e-6 if J else 5e-5)
    if J:
        assert q.gaussian_overlap == pytest.approx(J, abs=1e-6)
    assert q.second_moment == pytest.approx(1, abs=1e-9)
    assert 0 <= q.gaussian_overlap <= 1 + 1e-12
    assert q.gaussian_overlap == pytest.approx(1 - q.wasserstein**2 / 2, abs=1e-9)


def test_ternary_overlap_has_its_closed_form() -> None:
    for f in (0.1, 0.5, 0.9, 1.0):
        edge = -d.ndtri(f / 2)
        expected = 2 * float(d.normal_density(np.asarray(edge))) / np.sqrt(f)
        assert d.ternary(f).gaussian_overlap == pytest.approx(expected, abs=1e-9)
    assert d.ternary(1.0).gaussian_overlap == pytest.approx(d.binary().gaussian_overlap, abs=1e-12)


@pytest.mark.parametrize(("s", "J"), [(1e-3, 0.799), (0.6, 0.989393), (1.195, 0.799485), (1.515, 0.601205)])
def test_symmetric_lognormal_weights_leave_and_approach_a_gaussian(s: float, J: float) -> None:
    q = d.symmetric_lognormal(s)
    assert q.gaussian_overlap == pytest.approx(J, abs=1e-3 if s < 0.1 else 2e-6)
    assert q.second_moment == pytest.approx(1, abs=1e-9)
    assert q.mean == pytest.approx(0, abs=1e-12)
    magnitudes = q.quantile([0.75, 0.95]) / d.lognormal(s).quantile([0.5, 0.9])
    np.testing.assert_allclose(magnitudes, 1, rtol=1e-12)


def test_a_finite_number_of_quantiles_lacks_part_of_the_second_moment() -> None:
    for q, count, moment in (
        (d.lognormal(1.0), 200, 0.900),
        (d.lognormal(1.0), 1000, 0.958),
        (d.normal(), 200, 0.994),
        (d.normal(), 1000, 0.999),
    ):
        found = np.mean(q.quantile((np.arange(count) + 0.5) / count) ** 2)
        assert found == pytest.approx(moment, abs=6e-4)
        assert np.mean(target_weights(q, count) ** 2) == pytest.approx(1, abs=1e-12)


def test_overlap_of_a_sample_is_that_of_its_distribution() -> None:
    weights = np.random.default_rng(4).laplace(size=150)
    by_quadrature = d.WeightDistribution.from_weights("sample", weights, normalize=True)
    assert d.sample_overlap(weights) == pytest.approx(by_quadrature.gaussian_overlap, abs=1e-9)
    assert d.sample_overlap(3 * weights.reshape(10, 15)) == pytest.approx(
        d.sample_overlap(weights), abs=1e-12
    )
    gaussian = [d.sample_overlap(np.random.default_rng(seed).normal(size=600)) for seed in range(20)]
    assert np.mean(gaussian) == pytest.approx(0.9974, abs=5e-4)


def test_capacity_over_the_margin() -> None:
    margins = [0.0, 0.2, 0.5, 1.0, 2.0]
    expected = [2.0, 1.469208, 0.961205, 0.519572, 0.200231]
    np.testing.assert_allclose(unconstrained_capacity(margins), expected, atol=1e-6)
    np.testing.assert_allclose(capacity(d.normal(0.7), margins), 0.49 * np.array(expected), atol=1e-6)


def test_the_best_lognormal_has_s_1() -> None:
    s = np.linspace(0.8, 1.2, 9)
    values = [float(capacity(d.lognormal(each))) for each in s]
    assert s[int(np.argmax(values))] == pytest.approx(1.0)
    assert max(values) == pytest.approx(2 / np.e, abs=1e-9)


def test_balanced_populations_agree_with_the_general_formula() -> None:
    wide_E, wide_I, g = 1.0, 0.8, 0.8
    found = float(balanced_lognormal_capacity(wide_E, wide_I, g))
    assert found == pytest.approx(0.5031, abs=5e-5)
    strength = (np.exp(wide_E**2) / g + np.exp(wide_I**2) / (1 - g)) ** -0.5
    scale_E = strength / g * np.exp(wide_E**2 / 2)  # a lognormal of unit second moment has mean exp(-s^2 / 2)
    scale_I = strength / (1 - g) * np.exp(wide_I**2 / 2)
    populations = [(g, d.lognormal(wide_E).scaled(scale_E)), (1 - g, d.lognormal(wide_I).scaled(-scale_I))]
    assert g * populations[0][1].mean + (1 - g) * populations[1][1].mean == pytest.approx(0, abs=1e-9)
    assert float(population_capacity(populations)) == pytest.approx(found, rel=1e-9)
    assert float(population_capacity([(1.0, d.laplace())], 0.5)) == pytest.approx(
        float(capacity(d.laplace(), 0.5))
    )


def test_quantiles_and_samples_give_the_overlap_of_their_distribution() -> None:
    by_quantiles = d.WeightDistribution.from_quantiles("coin", lambda u: np.where(u > 0.5, 1.0, -1.0))
    assert by_quantiles.gaussian_overlap == pytest.approx(np.sqrt(2 / np.pi), abs=1e-7)
    sample = np.random.default_rng(0).laplace(size=20_000)
    sampled = d.WeightDistribution.from_weights("sample", sample, normalize=True)
    assert float(capacity(sampled)) == pytest.approx(1.926072, rel=0.01)
    few = d.WeightDistribution.from_weights("few", [-1.0, -1.0, 1.0, 1.0])
    assert few.gaussian_overlap == pytest.approx(np.sqrt(2 / np.pi), abs=1e-9)


def test_many_jumps_integrate_as_few_do() -> None:
    weights = np.sort(np.random.default_rng(1).normal(size=600))
    many = d.WeightDistribution.from_weights("many", weights, normalize=True)
    edges = d.ndtri(np.arange(601) / 600)
    steps = d.normal_density(edges[:-1]) - d.normal_density(edges[1:])
    assert many.gaussian_overlap == pytest.approx(float(d.unit_second_moment(weights) @ steps), abs=1e-9)
    assert many.second_moment == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: capacity(d.normal().scaled(2.0)), "normal: the second moment must be 1, not 4; divide the weights by 2"),
        (lambda: capacity(d.WeightDistribution.from_weights("w", [1.0, 3.0])), "second moment must be 1, not 5"),
        (lambda: capacity(d.normal(), -0.1), "a margin is a finite number, 0 or more, not -0.1"),
        (lambda: capacity(d.normal(), np.nan), "a margin is a finite number"),
        (lambda: d.normal(1.5), "sigma of a normal distribution must be above 0 and at most 1, not 1.5"),
        (lambda: d.ternary(0.0), "fraction of nonzero weights must be above 0"),
        (lambda: d.student_t(2.0), "degrees of freedom of Student's t must be above 2"),
        (lambda: d.lognormal(float("nan")), "s of a lognormal distribution"),
        (lambda: d.symmetric_lognormal(0.0), "s of a symmetric lognormal distribution must be above 0"),
        (lambda: d.sample_overlap([1.0]), "at least two weights"),
        (lambda: d.sample_overlap([1.0, np.inf]), "all of them finite"),
        (lambda: d.normal().scaled(0.0), "a scale must be finite and not 0"),
        (lambda: d.WeightDistribution.from_weights("w", []), "weights must be finite numbers, at least one"),
        (lambda: d.WeightDistribution.from_weights("w", [0.0, 0.0], normalize=True), "all 0"),
        (lambda: d.WeightDistribution.from_quantiles("down", lambda u: -u), "nondecreasing"),
        (lambda: d.WeightDistribution.from_quantiles("q", lambda u: u, jumps=(1.0,)), "between 0 and 1"),
        (lambda: population_capacity([(0.5, d.normal()), (0.6, d.normal())]), "fractions must be positive with sum 1"),
        (lambda: population_capacity([(1.0, d.normal().scaled(3.0))]), "all weights must be 1, not 9"),
        (lambda: balanced_lognormal_capacity(1.0, 1.0, 1.0), "fraction must be between 0 and 1"),
        (lambda: balanced_lognormal_capacity(-1.0, 1.0, 0.5), "0 or more"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]


def test_examples() -> None:
    for module in (capacity_module, d, learning_curves):
        failed, tried = doctest.testmod(module)
        assert tried
        assert not failed
