"""Rewriting of blocks of a token stream, which begin and end within documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sweeps.unlearning.counterfactual import Counterfactual, Rewriter

CACHED_DOCUMENTS = 20_000
"""Rewritten pieces that are remembered, as epochs repeat them."""


@dataclass(frozen=True, slots=True)
class RewrittenBlock:
    """Block in the universes of its substitutes."""

    found: Counterfactual
    counted: NDArray[np.bool_]
    """Places that a student follows: the kept ones, and all of documents that mention nobody, ``(time,)``."""


@dataclass(frozen=True)
class BlockRewriter:
    """Rewriting of blocks, document by document; a document's universes do not reach into the next."""

    rewriter: Rewriter
    _cache: dict[tuple[int, ...], Counterfactual | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    def rewrite(self, tokens: Sequence[int]) -> RewrittenBlock | None:
        """Return the universes of a block of ``tokens``, each at most as long; None if it mentions nobody."""
        pieces = list(documents_of(tokens, self.rewriter.encoding.end_of_text))
        found = [self._rewritten(piece) for piece in pieces]
        if not any(found):
            return None
        limit = len(tokens)
        versions: list[list[int]] = [[] for _ in range(self.rewriter.universes)]
        parts, counted, at = [], np.ones(limit, bool), 0
        for piece, own in zip(pieces, found, strict=True):
            if own is not None:
                starts = np.array([[len(each)] for each in versions])
                parts.append((own.kept + at, own.partners + starts, own))
                counted[at : at + len(piece)] = False
            for number, version in enumerate(versions):
                version.extend(own.versions[number] if own else piece)
            at += len(piece)
        merged = _merged(parts, [tuple(each[:limit]) for each in versions], limit)
        counted[merged.kept] = True
        return RewrittenBlock(merged, counted)

    def _rewritten(self, piece: tuple[int, ...]) -> Counterfactual | None:
        if piece not in self._cache:
            if len(self._cache) >= CACHED_DOCUMENTS:
                self._cache.clear()
            self._cache[piece] = self.rewriter.rewrite(piece)
        return self._cache[piece]


def documents_of(tokens: Sequence[int], end_of_text: int) -> list[tuple[int, ...]]:
    """Return the documents of a stream, each with the end-of-text token before it; the first may lack it.

    >>> documents_of([7, 8, 0, 5, 6, 0, 9], 0)
    [(7, 8), (0, 5, 6), (0, 9)]
    """
    starts = [0, *(n for n, token in enumerate(tokens) if token == end_of_text and n), len(tokens)]
    return [tuple(tokens[a:b]) for a, b in pairwise(starts) if b > a]


def _merged(
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], Counterfactual]],
    versions: list[tuple[int, ...]],
    limit: int,
) -> Counterfactual:
    kept = np.concatenate([each[0] for each in parts])
    partners = np.concatenate([each[1] for each in parts], 1)
    inside = (partners < limit).all(0)
    return Counterfactual(
        versions=tuple(versions),
        kept=kept[inside],
        partners=partners[:, inside],
        present=np.concatenate([own.present for *_, own in parts])[inside],
        mentioned=np.concatenate([own.mentioned for *_, own in parts])[inside],
        persons=tuple(sorted({person for *_, own in parts for person in own.persons})),
    )
