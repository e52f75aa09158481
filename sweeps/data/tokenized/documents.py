"""Token ids to documents, each followed by one end-of-text token, as in our own streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[Any]
LONGEST = 2**20
"""Ids of the longest piece: longer documents are cut."""


def documents_between_ends(blocks: Iterable[Ids], end: int) -> Iterator[Ids]:
    """Yield the documents between end-of-text tokens, each with one behind it; empty ones are left out.

    The token may stand before documents, behind them, or both. A document longer than ``LONGEST`` is yielded
    in pieces, the last with the token.
    """
    open_ids: Ids = np.empty(0, dtype=np.int64)
    for block in blocks:
        start = 0
        for stop in np.flatnonzero(block == end).tolist():
            document = np.concatenate([open_ids, block[start:stop]])
            if len(document):
                yield from _cut(np.append(document, end))
            open_ids, start = open_ids[:0], stop + 1
        open_ids = np.concatenate([open_ids, block[start:]])
        while len(open_ids) > LONGEST:
            yield open_ids[:LONGEST]
            open_ids = open_ids[LONGEST:]
    if len(open_ids):
        yield np.append(open_ids, end)


def pieces(blocks: Iterable[Ids], size: int) -> Iterator[Ids]:
    """Yield pieces of ``size`` ids by position, for streams without boundaries of documents."""
    open_ids: Ids = np.empty(0, dtype=np.int64)
    for block in blocks:
        open_ids = np.concatenate([open_ids, block])
        whole = len(open_ids) // size * size
        for start in range(0, whole, size):
            yield open_ids[start : start + size]
        open_ids = open_ids[whole:]
    if len(open_ids):
        yield open_ids


def _cut(ids: Ids) -> Iterator[Ids]:
    for start in range(0, len(ids), LONGEST):
        yield ids[start : start + LONGEST]
