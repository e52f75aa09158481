"""End to end without a sweep: bigram teachers, released text, and how near a bigram student comes to their mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sweeps.pate import (
    ConfidentGNMax,
    Ensemble,
    Ledger,
    OneTimeRandomness,
    PrivacyBudget,
    PrivateGenerator,
    ShardCounts,
)
from sweeps.pate.generator import Votes

N, V, PRIOR = 256, 24, 1.0
UNIFORM = np.full(V, 1 / V)


@cache
def teachers() -> ShardCounts:
    """Counts of shards of one Markov chain."""
    draws = np.random.default_rng(0)
    chain = draws.dirichlet(np.full(V, 0.5), V).cumsum(1)
    text = [0]
    for u in draws.random(N * 500 - 1):
        text.append(min(int(np.searchsorted(chain[text[-1]], u)), V - 1))
    return ShardCounts.of(np.array(text), teachers=N, vocab=V)


@cache
def mean() -> NDArray[np.float64]:
    return np.stack([teachers().at([token], UNIFORM, PRIOR).mean() for token in range(V)])


class Along:
    """Teachers that read along, beside a public model that knows nothing."""

    def __init__(self, sequences: int) -> None:
        self.public = np.tile(UNIFORM, (sequences, 1))

    def read(self, tokens: NDArray[np.int64]) -> tuple[Callable[[int], Ensemble], NDArray[np.float64]]:
        now = tokens.copy()
        return lambda sequence: teachers().at([now[sequence]], UNIFORM, PRIOR), self.public


def kl(votes: Votes, epsilon: float, sigma: float, queries: float = math.inf) -> tuple[float, int]:
    """KL(mean teacher, student) of a bigram student of the released tokens, and how many they are."""
    rule = ConfidentGNMax(threshold=N / 2 if sigma else 0, test_sigma=sigma, sigma=sigma)
    generator = PrivateGenerator(
        open=Along,
        rule=rule,
        ledger=Ledger(budget=PrivacyBudget(epsilon, 1e-5), cost=rule.cost, max_attempts=queries),
        randomness=OneTimeRandomness(f"{votes} {epsilon}"),
        votes=votes,
        start=0,
        length=20,
    )
    counts = np.full((V, V), 0.2)
    for group in generator.groups():
        for sequence, flags in zip(group.sequences, group.released, strict=True):
            for before, token, released in zip([0, *sequence], sequence, flags, strict=False):
                counts[before, token] += released
    student = counts / counts.sum(1, keepdims=True)
    weights = np.linalg.matrix_power(mean(), 50)[0]
    distance = weights @ (mean() * np.log(mean() / student)).sum(1)
    assert generator.ledger.epsilon <= epsilon
    return float(distance), generator.ledger.answers


def test_a_larger_budget_buys_a_better_student_from_hot_votes_only() -> None:
    """Digest 3.7: hot .533/.399/.251 at epsilon 4/8/16 against .605 without data; cold at the same T .605/.600/.594."""
    nothing = float(np.linalg.matrix_power(mean(), 50)[0] @ (mean() * np.log(mean() * V)).sum(1))
    hot = [kl("hot", epsilon, 30) for epsilon in (4, 8, 16)]
    cold = [kl("cold", epsilon, 30) for epsilon in (4, 8, 16)]
    assert nothing > hot[0][0] > hot[1][0] > hot[2][0]
    assert hot[2][0] < 0.5 * nothing
    for (from_hot, hot_tokens), (from_cold, cold_tokens) in zip(hot, cold, strict=True):
        assert from_hot < from_cold - 0.05
        assert hot_tokens > 3 * cold_tokens


def test_cold_votes_without_noise_collapse_to_the_mode() -> None:
    """Digest 3.7: unlimited queries, hot .020, low-noise cold .795: worse than no data."""
    hot, _ = kl("hot", math.inf, 0, queries=4000)
    cold, _ = kl("cold", math.inf, 0, queries=4000)
    nothing = float(np.linalg.matrix_power(mean(), 50)[0] @ (mean() * np.log(mean() * V)).sum(1))
    assert hot < 0.3 * nothing
    assert cold > nothing
