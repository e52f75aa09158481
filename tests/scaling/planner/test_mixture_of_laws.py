"""Intervals where several laws count: those of the weighted mixture of the laws' distributions."""

from dataclasses import replace

import numpy as np
import pytest
from samples_of_calibrations import calibration
from scipy.optimize import brentq
from scipy.stats import norm

from scaling import EffectiveTokensLaw, Question, plan
from scaling.planner.uncertainty import Predictive, mixed

WEAK = EffectiveTokensLaw(k=0.8, q=9.0, eps=0.02)
STRONG = replace(EffectiveTokensLaw(k=6.0, q=9.0, eps=0.02), variant="capacity")


def exact(weights, centers, noises):
    """Return the 5 % and 95 % quantiles of a mixture of normal distributions."""

    def above(at, level):
        return np.dot(weights, norm.cdf((at - np.array(centers)) / noises)) - level

    return [brentq(above, 0.0, 5.0, args=(level,)) for level in (0.05, 0.95)]


@pytest.mark.parametrize("weight", [0.93, 0.5, 0.3])
def test_the_interval_is_that_of_the_mixture(weight):
    one, other = Predictive(2.3, None, 0.01), Predictive(2.4, None, 0.02)
    found = mixed(2.3, [(weight, one), (1 - weight, other)])
    low, high = exact([weight, 1 - weight], [2.3, 2.4], [0.01, 0.02])
    assert found.value == 2.3
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.002)


def test_draws_are_part_of_a_laws_distribution():
    draws = 2.3 + 0.03 * norm.ppf((np.arange(400) + 0.5) / 400)
    found = mixed(2.3, [(0.6, Predictive(2.3, draws, 0.04)), (0.4, Predictive(2.5, None, 0.02))])
    low, high = exact([0.6, 0.4], [2.3, 2.5], [0.05, 0.02])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.006)


def test_one_law_keeps_its_own_interval_and_a_certain_one_has_none():
    alone = Predictive(2.3, np.linspace(2.2, 2.5, 50), 0.01)
    assert mixed(2.3, [(1.0, alone)]) == alone.estimate()
    assert mixed(2.3, [(1.0, Predictive(2.3, None, 0.0))]).low is None


def test_the_interval_holds_the_value_of_a_law_that_does_not_count():
    found = mixed(2.6, [(1.0, Predictive(2.3, None, 0.01))])
    assert found.high == found.value == 2.6
    assert found.low == pytest.approx(2.3 - 0.01645, abs=0.001)


def test_a_law_of_small_weight_widens_an_interval_less_than_one_that_counts_the_same():
    laws = {"effective-tokens": WEAK, "effective-tokens-capacity": STRONG}
    residual_sd = {"supervised": 0.004, **dict.fromkeys(laws, 0.006)}

    def width(weight):
        weights = {"effective-tokens": 1 - weight, "effective-tokens-capacity": weight}
        made = calibration(distillation=laws, residual_sd=residual_sd, law_weights=weights)
        way = plan(Question(student_params="500M", budget=1e21), made).distillations[0]
        assert way.loss.low <= way.loss.value <= way.loss.high
        return way.loss.high - way.loss.low

    assert width(0.0) == pytest.approx(2 * 1.645 * 0.006, rel=0.05)
    assert width(0.0) < width(0.04) < 1.2 * width(0.0) < width(0.5)
