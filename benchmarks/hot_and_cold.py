"""Released tokens of hot and cold votes against the number of tokens that teachers find equally likely.

For k likely tokens of a vocabulary, the largest number of tokens that a budget releases, over noise and
threshold, with at most 1 % of them tokens that no teacher would say. Prints a table: medians over seeds, with
the smallest and the largest.
"""

from __future__ import annotations

import argparse

import numpy as np

from sweeps.pate import DenseEnsemble, PrivacyBudget, release_rule
from sweeps.pate.generator import Votes, cast_votes

VOCAB, ATTEMPTS, WRONG = 512, 1000, 0.01
SIGMAS = np.geomspace(0.003, 0.5, 24)
THRESHOLDS = np.array([0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])


def most_released(k: int, votes: Votes, teachers: int, budget: PrivacyBudget, seed: int) -> float:
    """Return the most tokens that the budget releases with few wrong ones."""
    draws = np.random.default_rng((seed, k))
    ensemble = DenseEnsemble(draws.dirichlet(np.full(k, 60.0), teachers))
    counts = np.zeros((ATTEMPTS, VOCAB), np.int64)
    counts[:, :k] = [cast_votes(ensemble, votes, draws) for _ in range(ATTEMPTS)]
    noise, test = draws.standard_normal((ATTEMPTS, VOCAB)), draws.standard_normal(ATTEMPTS)
    best = 0.0
    for sigma in SIGMAS * teachers:
        right = np.argmax(counts + sigma * noise, 1) < k
        cost = release_rule("confident-gnmax", teachers=teachers, threshold=0, sigma=sigma).cost
        for threshold in THRESHOLDS * teachers:
            passed = counts.max(1) + sigma * test >= threshold
            if passed.any() and 1 - right[passed].mean() <= WRONG:
                share = passed.mean()
                best = max(best, share * budget.rho / (cost.test + share * cost.answer))
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teachers", type=int, default=1000)
    parser.add_argument("--epsilon", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    budget = PrivacyBudget(given.epsilon, 1e-5)
    print(f"n = {given.teachers}, epsilon = {given.epsilon:g}, delta = 1e-5")
    print(f"{'k':>3} {'hot':>22} {'cold':>22} {'hot / cold':>22}")
    for k in (2, 4, 8, 16, 32):
        found = np.array(
            [
                [most_released(k, votes, given.teachers, budget, seed) for votes in ("hot", "cold")]
                for seed in range(given.seeds)
            ]
        )
        columns = [found[:, 0], found[:, 1], found[:, 0] / found[:, 1]]
        print(
            f"{k:>3}",
            *(f"{np.median(c):8,.0f} ({c.min():,.0f} to {c.max():,.0f})".rjust(22) for c in columns),
        )


if __name__ == "__main__":
    main()
