"""Privacy accounting: closed forms, an independent accountant, the guard, and rates of release."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opacus.accountants.analysis import rdp
from scipy.stats import norm

from scaling.errors import InputError
from sweeps.pate import (
    AttemptCost,
    BudgetSpent,
    ConfidentGNMax,
    DenseEnsemble,
    HeterogeneousRelease,
    HomogeneousRelease,
    Ledger,
    PrivacyBudget,
    epsilon_of,
    release_rule,
    rho_of,
)

DELTA = 1e-5


@pytest.mark.parametrize(("queries", "sigma", "epsilon"), [(1000, 100, 2.2460), (128, 40, 1.9994)])
def test_epsilon_of_plain_queries(queries: int, sigma: float, epsilon: float) -> None:
    assert epsilon_of(queries / sigma**2, DELTA) == pytest.approx(epsilon, abs=5e-5)


@pytest.mark.parametrize(("epsilon", "rho", "queries"), [(4, 0.29765, 812), (8, 1.04914, 2864)])
def test_queries_within_a_budget(epsilon: float, rho: float, queries: int) -> None:
    assert rho_of(epsilon, DELTA) == pytest.approx(rho, abs=5e-6)
    rule = ConfidentGNMax(0, 64, 64)
    assert PrivacyBudget(epsilon, DELTA).queries(rule.cost) == queries
    ledger = Ledger(budget=PrivacyBudget(epsilon, DELTA), cost=rule.cost)
    for number in range(queries):
        assert ledger.charge() == number
    with pytest.raises(BudgetSpent, match=f"{queries} queries were made"):
        ledger.charge()
    assert ledger.epsilon <= epsilon


@given(st.floats(1e-3, 50), st.floats(1e-12, 0.1))
def test_rho_is_the_inverse_of_epsilon(epsilon: float, delta: float) -> None:
    assert epsilon_of(rho_of(epsilon, delta), delta) == pytest.approx(epsilon, rel=1e-9)


@pytest.mark.parametrize(
    ("rule", "sensitivities"),
    [
        (ConfidentGNMax(0, 40, 90), [(1, 40), (math.sqrt(2), 90)]),
        (HomogeneousRelease(0, 70), [(math.sqrt(2), 70)]),
        (HeterogeneousRelease(0, 50, 100), [(math.sqrt(2), 50)]),
    ],
)
def test_an_independent_accountant_agrees(rule, sensitivities) -> None:
    """Opacus composes Renyi DP of the same Gaussian mechanisms; its conversion is tighter than zCDP's."""
    queries, orders = 300, [1.5, 2, 5, 10, 20, 60, 200]
    composed = sum(
        rdp.compute_rdp(q=1.0, noise_multiplier=sigma / reach, steps=queries, orders=orders)
        for reach, sigma in sensitivities
    )
    rho = queries * rule.cost.whole
    np.testing.assert_allclose(composed, rho * np.array(orders), rtol=1e-10)
    fine = np.geomspace(1.01, 500, 2000)
    ours = epsilon_of(rho, DELTA)
    plain = (rho * fine + math.log(1 / DELTA) / (fine - 1)).min()  # Mironov 2017, Proposition 3
    assert ours == pytest.approx(plain, rel=1e-4)
    theirs, _ = rdp.get_privacy_spent(orders=list(fine), rdp=list(rho * fine), delta=DELTA)
    assert 0.8 * ours < theirs < ours


def test_costs_add_up_and_refusals_are_charged() -> None:
    ledger = Ledger(budget=PrivacyBudget(4, DELTA), cost=AttemptCost(test=0.01, answer=0.02))
    for refused in (True, False, True):
        ledger.charge()
        assert ledger.rho == pytest.approx(0.01 * ledger.attempts + 0.02 * ledger.answers)
        if refused:
            ledger.refuse()
    assert (ledger.attempts, ledger.answers, ledger.refusals) == (3, 1, 2)
    assert ledger.rho == pytest.approx(3 * 0.01 + 0.02)
    assert ledger.epsilon == pytest.approx(epsilon_of(0.05, DELTA))
    with pytest.raises(AssertionError, match="no attempt is under way"):
        ledger.refuse(), ledger.refuse()


@pytest.mark.parametrize("passing", [0.0, 0.3, 1.0])
def test_the_guard_stops_within_the_budget_whatever_is_refused(passing: float) -> None:
    draws = np.random.default_rng(0)
    ledger = Ledger(budget=PrivacyBudget(2, DELTA), cost=ConfidentGNMax(0, 50, 20).cost)
    while ledger.affords_another:
        ledger.charge()
        if draws.random() >= passing:
            ledger.refuse()
    assert ledger.rho <= ledger.budget.rho
    assert ledger.rho + ledger.cost.whole > ledger.budget.rho
    assert ledger.epsilon <= 2
    assert Ledger(budget=PrivacyBudget(9, DELTA), cost=ledger.cost, max_attempts=0).affords_another is False


def test_without_a_budget_something_else_must_end_it() -> None:
    free = PrivacyBudget(math.inf, DELTA)
    with pytest.raises(InputError, match="queries: nothing ends a release without a budget"):
        Ledger(budget=free, cost=ConfidentGNMax(5, 0, 0).cost)
    for sigma in (0, 9):
        assert free.queries(ConfidentGNMax(5, sigma, sigma).cost) == math.inf
    ledger = Ledger(budget=free, cost=ConfidentGNMax(5, 0, 0).cost, max_attempts=2)
    assert ledger.epsilon == 0
    ledger.charge(), ledger.refuse(), ledger.charge()
    assert ledger.epsilon == math.inf
    assert not ledger.affords_another


@pytest.mark.parametrize(
    ("epsilon", "delta", "reason"),
    [(0, DELTA, "epsilon: 0 allows no release"), (-1, DELTA, "epsilon"), (math.nan, DELTA, "epsilon"),
     (1, 0, "delta: 0 is no"), (1, 1, "delta: 1 is no")],
)  # fmt: skip
def test_budgets_that_are_none_are_refused(epsilon: float, delta: float, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        PrivacyBudget(epsilon, delta)


def test_the_test_passes_as_often_as_its_noise_says() -> None:
    votes, draws = np.array([60, 30, 10]), np.random.default_rng(1)
    rule = ConfidentGNMax(70, 10, 5)
    passed = np.mean([rule.release(votes, draws) is not None for _ in range(5000)])
    expected = norm.sf(1)
    assert abs(passed - expected) < 4 * math.sqrt(expected * (1 - expected) / 5000)
    assert rule.release(np.array([1000, 3]), draws) == 0
    assert HomogeneousRelease(90, 5).release(votes, draws) is None
    assert HomogeneousRelease(50, 0.1).release(votes, draws) == 0


def test_heterogeneous_release_is_proportional_to_counts() -> None:
    votes, draws = np.array([60, 30, 10]), np.random.default_rng(2)
    rule = HeterogeneousRelease(threshold=20, sigma=1e-9, teachers=100)
    found = [rule.release(votes, draws) for _ in range(5000)]
    shares = [np.mean([each == token for each in found]) for token in (0, 1, 2, None)]
    np.testing.assert_allclose(shares, [0.6, 0.3, 0.0, 0.1], atol=4 * math.sqrt(0.25 / 5000))
    wide = HeterogeneousRelease(threshold=1, sigma=30, teachers=5)
    assert all(wide.release(np.array([5, 0, 0]), draws) in (0, 1, 2, None) for _ in range(200))


def released(ensemble: DenseEnsemble, hot: bool, rule, queries: int, seed: int = 0) -> np.ndarray:
    draws, noise = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    found = []
    for _ in range(queries):
        votes = (
            ensemble.coordinated_votes(draws.standard_exponential(ensemble.vocab))
            if hot
            else ensemble.independent_votes(draws)
        )
        found.append(rule.release(votes, noise))
    return np.array([-1 if each is None else each for each in found])


def test_identical_teachers_release_their_distribution_and_cold_ones_its_mode() -> None:
    """Digest 3.6: hot .30/.25/.20/.15/.10, cold .76/.20/.035/.002/0, through noise."""
    p = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    ensemble, rule, count = DenseEnsemble.of([p] * 256), ConfidentGNMax(-math.inf, 10, 10), 6000
    hot, cold = (
        np.bincount(released(ensemble, each, rule, count), minlength=5) / count for each in (True, False)
    )
    np.testing.assert_allclose(hot, p, atol=4 * math.sqrt(0.25 / count))
    assert cold[0] > 0.65
    assert cold[4] < 0.005


def test_yield_does_not_fall_with_diversity_for_hot_votes_only() -> None:
    """Digest 3.7: n = 256 around uniform over k tokens, T = n/2, sigma 20: hot .90/.81/.80, cold .002/0/0."""
    rule = release_rule("confident-gnmax", teachers=256, threshold=128, sigma=20)
    for k, least in ((4, 0.8), (16, 0.7), (64, 0.65)):
        p = np.random.default_rng(k).dirichlet(np.full(k, 60.0), 256)
        ensemble = DenseEnsemble(p)
        hot, cold = (released(ensemble, each, rule, 600) for each in (True, False))
        assert (hot >= 0).mean() > least
        assert (cold >= 0).mean() < 0.02
        mean = np.bincount(hot[hot >= 0], minlength=k) / (hot >= 0).sum()
        assert np.abs(mean - ensemble.mean()).sum() / 2 < 3 * math.sqrt(k / 600)
