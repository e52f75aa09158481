"""Alignment of token sequences by longest matching blocks (Ratcliff and Obershelp), as difflib finds them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
LEAST_BLOCK = 2
"""Tokens of the shortest block that counts: one alone is often equal by chance."""


def align(original: Sequence[int], other: Sequence[int], least: int = LEAST_BLOCK) -> Places:
    """Return pairs of places with equal tokens, ``(pairs, 2)``: ascending in both.

    >>> align([5, 6, 1, 7, 8], [5, 6, 2, 3, 7, 8]).tolist()
    [[0, 0], [1, 1], [3, 4], [4, 5]]
    """
    blocks = SequenceMatcher(None, original, other, autojunk=False).get_matching_blocks()
    pairs = [(a + n, b + n) for a, b, size in blocks if size >= least for n in range(size)]
    return np.array(pairs, np.int64).reshape(-1, 2)


def common_places(alignments: Sequence[Places]) -> tuple[Places, Places]:
    """Return the original places that all alignments have, and their partners.

    Args:
        alignments: Pairs ``(pairs, 2)`` each, of one original with several others.

    Returns:
        Places in the original ``(kept,)``, ascending, and in each other ``(others, kept)``.
    """
    partners = [dict(pairs.tolist()) for pairs in alignments]
    kept = sorted(set.intersection(*(set(each) for each in partners))) if partners else []
    found = [[each[place] for place in kept] for each in partners]
    return np.array(kept, np.int64), np.array(found, np.int64).reshape(len(partners), len(kept))
