"""Huber's function under normal noise: weights and information of rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from fits.estimation.huber import EFFICIENT, curvature, row_information, row_weight, score_variance


@pytest.mark.parametrize("delta", [1e-9, 1e-5, 1e-3, 0.01, 0.05])
def test_moments_are_those_of_the_normal_distribution(delta: float) -> None:
    sigma = np.array([0.02])
    z = norm.ppf((np.arange(200_000) + 0.5) / 200_000)

    def variance(t: float) -> float:
        return float(np.mean(np.minimum(np.abs(z), t) ** 2))

    t = min(delta / 0.02, EFFICIENT)
    inside = [norm.cdf(each) - norm.cdf(-each) for each in (t, EFFICIENT)]
    assert curvature(np.array([delta]), sigma) == pytest.approx(inside[0] / inside[1], rel=1e-6)
    ratio = variance(t) / variance(EFFICIENT)
    assert score_variance(np.array([delta]), sigma) == pytest.approx(ratio, rel=1e-3)


def test_least_squares_and_auto_keep_their_weights() -> None:
    sigma = np.array([0.01, 0.02])
    for delta in (np.full(2, np.inf), EFFICIENT * sigma, np.full(2, 0.5)):
        np.testing.assert_allclose(row_weight(delta, sigma), sigma**-2, rtol=1e-12)
        np.testing.assert_allclose(row_information(delta, sigma), sigma**-2, rtol=1e-12)


def test_least_absolute_deviations_have_two_thirds_of_the_information() -> None:
    sigma = np.array([0.01])
    efficiency = row_information(np.array([1e-8]), sigma) * sigma**2
    assert efficiency == pytest.approx((2 / np.pi) / 0.95, rel=1e-3)
