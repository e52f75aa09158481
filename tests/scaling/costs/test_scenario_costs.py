"""Cost of a scenario: Eq. 9 of Busbridge et al. 2025, written once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.costs.scenarios import (
    BEST_CASE,
    BOTH,
    INFERENCE,
    PRETRAINING,
    SCENARIOS,
    Scenario,
    cost,
    rates,
    teacher_is_free,
)
from scaling.planner.optimizer import Problems

shares = st.floats(0, 1)
sizes = st.floats(1e3, 1e13)


@given(shares, shares, sizes, sizes, sizes, sizes)
def test_cost_is_equation_9(logits, pretraining, F_S, D_S, F_T, D_T):
    found = cost(Scenario("any", logits, pretraining), F_S, D_S, F_T, D_T)
    assert sum(map(float, found)) == pytest.approx(
        3 * F_S * D_S + F_T * (logits * D_S + pretraining * 3 * D_T)
    )


@given(shares, shares, sizes, sizes, sizes)
def test_cost_is_rates_times_tokens(logits, pretraining, F_S, F_T, tokens):
    """To the last bit, so that whoever inverts the cost for tokens finds what it charges."""
    charged = Scenario("any", logits, pretraining)
    assert np.array_equal(
        np.array(cost(charged, F_S, tokens, F_T, tokens)), np.array(rates(charged, F_S, F_T)) * tokens
    )


def test_a_part_that_is_not_charged_may_be_unknown():
    assert tuple(map(float, cost(INFERENCE, 2.0, 5.0, 7.0, np.nan))) == (30.0, 35.0, 0.0)
    assert tuple(map(float, cost(BEST_CASE, 2.0, 5.0, np.nan, np.nan))) == (30.0, 0.0, 0.0)
    assert np.isnan(cost(PRETRAINING, 2.0, 5.0, 7.0, np.nan).teacher)


def test_shares_may_differ_between_problems():
    """Rows of an array are charged as the scenarios they come from."""
    each = list(SCENARIOS.values())
    problems = Problems.of(1e9, 1e21, [s.logits for s in each], [s.pretraining for s in each])
    together = cost(problems, 2e9, 1e10, 1.4e10, 1e11)
    for k, one in enumerate(each):
        alone = cost(one, 2e9, 1e10, 1.4e10, 1e11)
        assert [float(np.broadcast_to(part, (4, 1))[k, 0]) for part in together] == list(map(float, alone))
    assert teacher_is_free(problems).ravel().tolist() == [True, False, False, False]


def test_amortized_training_is_paid_once():
    students = [BOTH.amortized(3)] * 3
    paid = sum(float(cost(each, 2e9, 1e10, 1.4e10, 1e11).teacher) for each in students)
    assert paid == pytest.approx(float(cost(BOTH, 2e9, 1e10, 1.4e10, 1e11).teacher), rel=1e-15)
