"""Agreement of two teachers: the probability that coordinated votes are equal, and its bounds.

The probability that argmax_j p_j / u_j and argmax_j q_j / u_j are equal is the probability Jaccard
similarity (Moulton and Jiang 2018), not the weighted Jaccard similarity min / max that Hot PATE prints.
"""

from __future__ import annotations

import numpy as np

from sweeps.pate.ensemble import Floats


def probability_jaccard(p: Floats, q: Floats) -> float:
    """Return J_P = sum_j 1 / sum_k max(p_k / p_j, q_k / q_j) over tokens that both can draw.

    >>> probability_jaccard(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    0.5
    """
    both = np.flatnonzero((p > 0) & (q > 0))
    ratios = np.maximum(p / p[both, None], q / q[both, None])
    return float((1 / ratios.sum(1)).sum())


def total_variation(p: Floats, q: Floats) -> float:
    """Return the total variation distance, half of the L1 distance."""
    return float(np.abs(p - q).sum() / 2)


def weighted_jaccard(p: Floats, q: Floats) -> float:
    """Return sum min(p, q) / sum max(p, q), a lower bound of :func:`probability_jaccard`."""
    return float(np.minimum(p, q).sum() / np.maximum(p, q).sum())


def independent_agreement(p: Floats, q: Floats) -> float:
    """Return the probability that independent draws are equal."""
    return float(p @ q)
