"""Renaming of probability mass: what a substitute's name would begin with becomes the original's.

Rows are distributions over the next token and keep their sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ids = NDArray[np.int64]
LEFT = 1e-8
"""Probability that a renamed token keeps, so that logarithms stay finite."""
NOTICEABLE, MAJORITY = 0.1, 0.5
"""A universe speaks of its substitute if the name's tokens have more than this; most of them must."""


def move_mass(p: Floats, sources: Ids, destinations: Ids) -> Floats:
    """Return ``p`` with the mass of ``sources`` moved, but for :data:`LEFT` each.

    Args:
        p: Distributions, ``(rows, vocab)``.
        sources: Tokens, ``(tokens,)``; a row's own destination among them is left alone.
        destinations: Token that takes the mass of each source in each row, ``(rows, tokens)``.
    """
    moved = np.maximum(p[:, sources] - LEFT, 0)
    moved[destinations == sources] = 0
    found = p.copy()
    rows = np.arange(len(p))[:, None]
    np.subtract.at(found, (rows, sources[None, :]), moved)
    np.add.at(found, (rows, destinations), moved)
    return found


def rename_before_mentions(p: Floats, name_tokens: Ids, present: Ids) -> Floats:
    """Return ``p`` at places before a mention: the name's mass goes to the token that the text has there.

    Args:
        p: Distributions of one universe, ``(rows, vocab)``.
        name_tokens: Tokens that a word of the substitute's name may begin with.
        present: Token of the original text that comes next, ``(rows,)``.
    """
    return move_mass(p, name_tokens, np.repeat(present[:, None], len(name_tokens), 1))


def speaks_of_substitute(p: Floats, name_tokens: list[Ids]) -> NDArray[np.bool_]:
    """Return the rows where most universes expect their substitute's name, ``(rows,)``.

    Args:
        p: Distributions, ``(universes, rows, vocab)``.
        name_tokens: Tokens of each universe's substitute.
    """
    expects = [each[:, tokens].sum(1) > NOTICEABLE for each, tokens in zip(p, name_tokens, strict=True)]
    found: NDArray[np.bool_] = np.mean(expects, 0) > MAJORITY
    return found


def rename_elsewhere(p: Floats, name_tokens: Ids, original_tokens: Ids) -> Floats:
    """Return ``p`` with each token of a substitute's name exchanged for the original's at its place.

    Args:
        p: Distributions of one universe, ``(rows, vocab)``.
        name_tokens: First tokens of the substitute's words.
        original_tokens: Those of the original's, ``(tokens,)``.
    """
    return move_mass(p, name_tokens, np.repeat(original_tokens[None, :], len(p), 0))


def penalize(p: Floats, tokens: Ids, logits: float) -> Floats:
    """Return ``p`` with ``logits`` subtracted from the logits of ``tokens``, as WHP does with names."""
    found = p.copy()
    found[:, tokens] *= np.exp(-logits)
    normalized: Floats = found / found.sum(1, keepdims=True)
    return normalized


def one_hot(p: Floats) -> Floats:
    """Return the hard label of each row: all mass on its likeliest token."""
    found = np.zeros_like(p)
    found[np.arange(len(p)), p.argmax(1)] = 1
    return found
