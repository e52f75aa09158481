"""Votes of an ensemble: marginals, agreement, spikes, sensitivity, and sparse votes against dense ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from scaling.errors import InputError
from sweeps.pate import (
    DenseEnsemble,
    OneTimeRandomness,
    ShardCounts,
    SparseEnsemble,
    independent_agreement,
    probability_jaccard,
    total_variation,
    weighted_jaccard,
)

DRAWS = 20_000


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def dirichlet(n: int, vocab: int, seed: int = 0) -> DenseEnsemble:
    return DenseEnsemble.of(list(generator(seed).dirichlet(np.full(vocab, 0.7), n)))


def tokens_drawn(ensemble: DenseEnsemble, seed: int = 1) -> np.ndarray:
    """Coordinated votes of many steps, ``(draws, teachers)``."""
    u = generator(seed).standard_exponential((DRAWS, ensemble.vocab))
    return np.argmax(ensemble.p[None] / u[:, None], -1)


def test_each_coordinated_vote_is_distributed_as_its_teacher_says() -> None:
    ensemble = dirichlet(4, 7)
    votes = tokens_drawn(ensemble)
    for teacher, p in enumerate(ensemble.p):
        observed = np.bincount(votes[:, teacher], minlength=7)
        assert chisquare(observed, p * DRAWS).pvalue > 1e-3
    for method in ("coordinated", "independent"):
        draws, total = generator(2), np.zeros(7)
        for _ in range(4000):
            u = draws.standard_exponential(7)
            total += (
                ensemble.coordinated_votes(u)
                if method == "coordinated"
                else ensemble.independent_votes(draws)
            )
        expected = ensemble.p.sum(0)
        assert np.abs(total / 4000 - expected).max() < 4 * np.sqrt(4 * expected.max() / 4000)


@pytest.mark.parametrize("seed", range(3))
def test_coordinated_teachers_agree_as_often_as_their_probability_jaccard_says(seed: int) -> None:
    """Which is above the weighted Jaccard that Hot PATE prints for this sampler."""
    ensemble = dirichlet(2, 6, seed)
    p, q = ensemble.p
    votes = tokens_drawn(ensemble, seed + 10)
    expected = probability_jaccard(p, q)
    error = np.sqrt(expected * (1 - expected) / DRAWS)
    assert abs((votes[:, 0] == votes[:, 1]).mean() - expected) < 4 * error
    assert expected > weighted_jaccard(p, q) + 8 * error


def test_independent_teachers_agree_as_often_as_their_product_says() -> None:
    ensemble = dirichlet(2, 6)
    draws = generator(3)
    agreed = np.mean([ensemble.independent_votes(draws).max() == 2 for _ in range(8000)])
    expected = independent_agreement(*ensemble.p)
    assert abs(agreed - expected) < 4 * np.sqrt(expected * (1 - expected) / 8000)


distributions = st.integers(2, 8).flatmap(
    lambda size: st.tuples(*[st.lists(st.integers(0, 9), min_size=size, max_size=size)] * 2).filter(
        lambda pair: all(sum(each) for each in pair)
    )
)


@given(distributions)
@settings(max_examples=300, deadline=None)
def test_agreement_lies_between_its_bounds(pair: tuple[list[int], list[int]]) -> None:
    p, q = (np.array(each) / sum(each) for each in pair)
    agreement, distance = probability_jaccard(p, q), total_variation(p, q)
    assert weighted_jaccard(p, q) == pytest.approx((1 - distance) / (1 + distance), abs=1e-12)
    assert weighted_jaccard(p, q) - 1e-12 <= agreement <= 1 - distance + 1e-12
    assert agreement >= independent_agreement(p, q) - 1e-12
    assert probability_jaccard(p, p) == pytest.approx(1, abs=1e-12)


def test_the_printed_agreement_formula_is_not_that_of_the_sampler() -> None:
    p, q = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    assert probability_jaccard(p, q) == 0.5
    assert weighted_jaccard(p, q) == pytest.approx(1 / 3)


def test_identical_teachers_vote_as_one() -> None:
    p = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    ensemble, draws = DenseEnsemble.of([p] * 50), generator(4)
    for _ in range(200):
        votes = ensemble.coordinated_votes(draws.standard_exponential(5))
        assert sorted(votes) == [0, 0, 0, 0, 50]
    assert ensemble.independent_votes(draws).max() < 50


@given(seed=st.integers(0, 2**32 - 1), changed=st.integers(0, 29))
@settings(max_examples=100, deadline=None)
def test_one_teacher_moves_one_vote_at_most_for_the_same_shared_numbers(seed: int, changed: int) -> None:
    draws = generator(seed)
    before = draws.dirichlet(np.full(9, 0.3), 30)
    after = before.copy()
    after[changed] = draws.dirichlet(np.full(9, 0.3))
    u = draws.standard_exponential(9)
    a, b = (DenseEnsemble(each).coordinated_votes(u) for each in (before, after))
    assert a.sum() == b.sum() == 30
    assert np.abs(a - b).sum() <= 2
    assert abs(int(a.max()) - int(b.max())) <= 1
    assert (
        DenseEnsemble(before).coordinated_tokens(u) != DenseEnsemble(after).coordinated_tokens(u)
    ).sum() <= 1


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_one_shard_of_the_text_moves_one_vote_at_most(seed: int) -> None:
    draws = generator(seed)
    text = draws.integers(0, 12, 400)
    other = text.copy()
    shard = draws.integers(0, 20)
    other[shard * 20 : (shard + 1) * 20] = draws.integers(0, 12, 20)
    public, u = draws.dirichlet(np.ones(12)), draws.standard_exponential(12)
    a, b = (
        ShardCounts.of(each, teachers=20, vocab=12).at(text[:3], public, 1.0).coordinated_votes(u)
        for each in (text, other)
    )
    assert np.abs(a - b).sum() <= 2


def test_diversity_is_transferred() -> None:
    """A token that m of n teachers give probability q has m/2 votes with probability near q (Lemma 1, p = 1/2)."""
    n, m, q, vocab = 40, 30, 0.1, 12
    p = np.full((n, vocab), (1 - q) / (vocab - 1))
    p[:, 0] = q
    p[m:, 0] = 0
    p[m:] /= p[m:].sum(1, keepdims=True)
    ensemble, draws = DenseEnsemble(p), generator(5)
    counts = [ensemble.coordinated_votes(draws.standard_exponential(vocab))[0] for _ in range(6000)]
    often = np.mean(np.array(counts) >= m / 2)
    error = np.sqrt(q / 6000)
    assert often > np.log(2) / 2 * q
    assert often > (q * (1 - 0.5 ** (1 / (1 - q))) - 0.5 * (1 - 0.5 ** (q / (1 - q)))) / 0.5
    for threshold in (15, 20, 28):  # relevance, Lemma 2
        assert np.mean(np.array(counts) >= threshold) <= p[:, 0].sum() / threshold + 4 * error


def random_counts(temperature: float, order: int = 2) -> SparseEnsemble:
    draws = generator(6)
    text = np.minimum(draws.geometric(0.2, 3000) - 1, 14)
    counts = ShardCounts.of(text, teachers=30, vocab=15, order=order)
    prefix = [3, 1, 9]
    return counts.at(prefix, draws.dirichlet(np.ones(15)), 2.0, temperature)


@pytest.mark.parametrize(("temperature", "order"), [(1.0, 2), (0.6, 2), (2.0, 3)])
def test_sparse_votes_are_those_of_the_matrix(temperature: float, order: int) -> None:
    ensemble = random_counts(temperature, order)
    assert 5 < len(ensemble.starts) < 30
    dense, draws = ensemble.dense(), generator(7)
    np.testing.assert_allclose(ensemble.mean(), dense.mean(), rtol=1e-12)
    np.testing.assert_allclose(dense.p.sum(1), 1, rtol=1e-12)
    total = np.zeros(15)
    for _ in range(2000):
        u = draws.standard_exponential(15)
        np.testing.assert_array_equal(ensemble.coordinated_votes(u), dense.coordinated_votes(u))
        total += ensemble.independent_votes(draws)
    expected = dense.p.sum(0)
    error = np.sqrt((dense.p * (1 - dense.p)).sum(0) / 2000)
    assert (np.abs(total / 2000 - expected) < 4.5 * error + 1e-9).all()


def test_counts_are_those_of_the_shards() -> None:
    text = np.array([0, 1, 2, 1, 2, 0, 2, 1, 1, 0, 0, 1, 2])  # three shards of four, one token over
    counts = ShardCounts.of(text, teachers=3, vocab=3)
    assert counts.shard_tokens == 4
    public = np.array([0.5, 0.25, 0.25])
    dense = counts.at([2, 1], public, prior=2.0).dense().p
    # after 1: shard 0 (0 1 2 1) has 2; shard 1 (2 0 2 1) nothing; shard 2 (1 0 0 1) has 0
    rows = {tuple(np.round(row, 6)) for row in dense}
    assert rows == {tuple(np.round((public * 2 + np.eye(3)[j]) / 3, 6)) for j in (0, 2)} | {tuple(public)}
    assert len(counts.at([], public, 2.0).starts) == 0


def test_the_mean_in_parts_is_the_mean() -> None:
    draws = generator(8)
    counts = ShardCounts.of(draws.integers(0, 9, 700), teachers=10, vocab=9, order=2)
    public = draws.dirichlet(np.ones(9))
    weight, adds = counts.mean_parts(3.0)
    for at, context in enumerate(counts.contexts):
        entries = slice(counts.entry_ends[at], counts.entry_ends[at + 1])
        p = weight[at] * public
        np.add.at(p, counts.tokens[entries], adds[entries])
        np.testing.assert_allclose(p, counts.at([context], public, 3.0).mean(), rtol=1e-12)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda: DenseEnsemble.of([np.ones(3) / 3, np.ones(4) / 4]), "vocabularies of one size .* 3 and 4"),
        (lambda: DenseEnsemble.of([]), "found no teachers"),
        (lambda: DenseEnsemble.of([np.array([0.5, np.nan])]), "negative or infinite entry"),
        (lambda: DenseEnsemble.of([np.ones(2) / 2], temperature=0), "temperature: 0 leaves no distribution"),
        (lambda: ShardCounts.of(np.zeros(9, int), teachers=1, vocab=3), "1 shard makes no ensemble"),
        (lambda: ShardCounts.of(np.zeros(9, int), teachers=5, vocab=3), "5 shards of 9 tokens have 1 each"),
        (lambda: ShardCounts.of(np.full(9, 7), teachers=2, vocab=7), "token 7 .* outside .* vocabulary of 7"),
        (lambda: ShardCounts.of(np.zeros(99, int), teachers=9, vocab=2**21, order=3), "order: 3-grams over"),
    ],
)
def test_what_cannot_vote_is_refused(broken, reason) -> None:
    with pytest.raises(InputError, match=reason):
        broken()


def test_random_numbers_are_drawn_once_and_apart() -> None:
    randomness = OneTimeRandomness("a")
    votes, noise = randomness.open(0)
    first = votes.random(100), noise.random(100)
    assert not np.isin(first[0], first[1]).any()
    assert not np.isin(randomness.open(1)[0].random(100), first[0]).any()
    for number in (0, 1):
        with pytest.raises(ValueError, match=f"query {number} were drawn before"):
            randomness.open(number)
    again = OneTimeRandomness("a", last=1)
    with pytest.raises(ValueError, match="drawn before"):
        again.open(1)
    assert not np.isin(OneTimeRandomness("b").open(0)[0].random(100), first[0]).any()
    np.testing.assert_array_equal(OneTimeRandomness("a").open(0)[0].random(100), first[0])
