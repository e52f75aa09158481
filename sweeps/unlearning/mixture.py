"""The mean over universes, and its exact properties.

KL to a mixture and the mean of KLs have one gradient:
sum_i KL(p_i || s) / N = KL(p-bar || s) + JSD(p_1..p_N).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sweeps.unlearning.renaming import Floats


def average(p: Floats) -> Floats:
    """Return p-bar, the arithmetic mean over universes: ``(universes, ..., vocab)`` to ``(..., vocab)``."""
    found: Floats = p.mean(0)
    return found


def kl(p: Floats, q: Floats) -> Floats:
    """Return KL(p || q) over the last axis, nats, with 0 ln 0 = 0."""
    from scipy.special import rel_entr  # heavy: whoever reads a corpus loads this module

    found: Floats = rel_entr(p, q).sum(-1)
    return found


def jensen_shannon(p: Floats) -> Floats:
    """Return JSD(p_1..p_N) = H(p-bar) - mean H(p_i) <= ln N, nats: ``(universes, ..., vocab)``."""
    from scipy.special import entr

    found: Floats = entr(average(p)).sum(-1) - entr(p).sum(-1).mean(0)
    return found


def share_with_true(value: object, of_substitutes: Sequence[object]) -> float:
    """Return p-bar(true) of a perfect memory: the share of substitutes with the same value."""
    return sum(each == value for each in of_substitutes) / len(of_substitutes)


def chance_spread(values: int, universes: int) -> float:
    """Return the sd of p-bar(true) over facts, for attributes uniform on ``values``.

    >>> [round(chance_spread(20, n), 4) for n in (1, 5, 20)]
    [0.2179, 0.0975, 0.0487]
    """
    return math.sqrt(1 / values * (1 - 1 / values) / universes)


def chance_of_none(values: int, universes: int) -> float:
    """Return the probability that no substitute has the true value, so that p-bar(true) is 0.

    >>> round(chance_of_none(20, 20), 3)
    0.358
    """
    return (1 - 1 / values) ** universes
