"""Released tokens of hot and cold votes against the number of tokens that teachers find equally likely.

For k likely tokens of a vocabulary, the largest number of tokens that a budget releases, over noise and
threshold, with at most 1 % of them tokens that no teacher would say. Prints a table for each number of
teachers: medians over seeds, with the smallest and the largest, and the exponent g of hot / cold ~ k^g, the
mean over seeds of least-squares lines through logarithms with its 90 % interval of Student's t.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import t as student_t

from sweeps.pate import DenseEnsemble, PrivacyBudget, release_rule
from sweeps.pate.generator import Votes, cast_votes

ATTEMPTS, WRONG = 1000, 0.01
LIKELY = (2, 4, 8, 16, 32)
SIGMAS = np.geomspace(0.003, 0.5, 40)
THRESHOLDS = np.array([0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])


def most_released(k: int, votes: Votes, teachers: int, vocab: int, budget: PrivacyBudget, seed: int) -> float:
    """Return the most tokens that the budget releases with few wrong ones.

    The largest noise of the other vocab - k tokens, which have no votes, is drawn from its own distribution.
    """
    draws = np.random.default_rng((seed, k))
    ensemble = DenseEnsemble(draws.dirichlet(np.full(k, 60.0), teachers))
    counts = np.array([cast_votes(ensemble, votes, draws) for _ in range(ATTEMPTS)])
    noise, test = draws.standard_normal((ATTEMPTS, k)), draws.standard_normal(ATTEMPTS)
    others = ndtri(draws.random(ATTEMPTS) ** (1 / (vocab - k)))
    best = 0.0
    for sigma in SIGMAS * teachers:
        right = (counts + sigma * noise).max(1) > sigma * others
        cost = release_rule("confident-gnmax", teachers=teachers, threshold=0, sigma=sigma).cost
        for threshold in THRESHOLDS * teachers:
            passed = counts.max(1) + sigma * test >= threshold
            if passed.any() and 1 - right[passed].mean() <= WRONG:
                share = passed.mean()
                best = max(best, share * budget.rho / (cost.test + share * cost.answer))
    return best


def exponent(ratios: NDArray[np.float64]) -> tuple[float, float]:
    """Return the exponent of ``ratios`` ``(seeds, k)`` in k, and the half width of its 90 % interval."""
    slopes = np.array([np.polyfit(np.log(LIKELY), np.log(each), 1)[0] for each in ratios])
    spread = slopes.std(ddof=1) / np.sqrt(len(slopes)) if len(slopes) > 1 else np.nan
    return float(slopes.mean()), float(student_t.ppf(0.95, max(1, len(slopes) - 1)) * spread)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teachers", type=int, nargs="+", default=[1000])
    parser.add_argument("--vocab", type=int, nargs="+", default=[512])
    parser.add_argument("--epsilon", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    budget = PrivacyBudget(given.epsilon, 1e-5)
    for teachers, vocab in itertools.product(given.teachers, given.vocab):
        print(f"n = {teachers}, vocabulary {vocab}, epsilon = {given.epsilon:g}, delta = 1e-5")
        print(f"{'k':>3} {'hot':>26} {'cold':>26} {'hot / cold':>26}")
        ratios = np.empty((given.seeds, len(LIKELY)))
        for at, k in enumerate(LIKELY):
            found = np.array(
                [
                    [most_released(k, votes, teachers, vocab, budget, seed) for votes in ("hot", "cold")]
                    for seed in range(given.seeds)
                ]
            )
            ratios[:, at] = found[:, 0] / found[:, 1]
            columns = [found[:, 0], found[:, 1], ratios[:, at]]
            cells = (f"{np.median(c):8,.0f} ({c.min():,.0f} to {c.max():,.0f})".rjust(26) for c in columns)
            print(f"{k:>3}", *cells, flush=True)
        slope, half = exponent(ratios)
        print(f"hot / cold ~ k^g with g = {slope:.2f} +- {half:.2f}\n", flush=True)


if __name__ == "__main__":
    main()
