"""Which documents are held out: whole ones, of every part its share, before anything is tokenised."""

from __future__ import annotations

import random
from dataclasses import dataclass

from scaling.errors import InputError
from sweeps.data.sources import Document, Part, Source

HELDOUT_BYTES = 800_000
"""Text held out of a large corpus unless a share is given."""
LARGEST_SHARE = 0.125
"""Of a small corpus held out unless a share is given."""
LOSS_SPREAD = 1.33
"""Standard error of a held-out loss, as a share of it, times the root of the tokens.

Measured over blocks of 128 tokens: 0.95 to 1.32 on ``kjv`` with vocabulary 512 (22k and 107k parameters),
1.1 on ``permissive`` with 4096 (56k, 107k). It is the error of a loss given the held-out documents, which all
runs share. As a sample of all such text those documents add one that is common to all runs: two to six times
as much, but hardly to what runs differ by (0.07 % of the loss between two runs 2 % apart).
"""
PRECISE = 0.003
"""Standard error, as a share of the loss, that a held-out part should give."""


def standard_error(tokens: int) -> float:
    """Of the loss on so many held-out tokens, about, as a share of it."""
    return LOSS_SPREAD * tokens**-0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """The documents of one part, divided."""

    part: Part
    train: list[Document]
    heldout: list[Document]


def split_documents(source: Source, heldout: float | None, seed: int) -> list[Split]:
    """Training and held-out documents of every part, shuffled; exact duplicates of a document are dropped.

    Args:
        source: documents.
        heldout: share of each part's bytes, in documents that fit into it; at least one document. If None,
            ``HELDOUT_BYTES`` of the whole, but at most ``LARGEST_SHARE``.
        seed: of the order and so of the choice.

    Raises:
        InputError: if a part has fewer than two different documents.
    """
    parts = _distinct(source)
    total = sum(_bytes(text) for documents in parts for text in documents)
    share = min(LARGEST_SHARE, HELDOUT_BYTES / total) if heldout is None else heldout
    splits = []
    for part, documents in zip(source.parts, parts, strict=True):
        random.Random(seed).shuffle(documents)  # noqa: S311
        held = _choose(documents, share)
        splits.append(
            Split(
                part=part,
                train=[text for number, text in enumerate(documents) if number not in held],
                heldout=[documents[number] for number in sorted(held)],
            )
        )
    return splits


def _distinct(source: Source) -> list[list[Document]]:
    """The documents of each part, sorted, each only the first time it occurs."""
    seen: set[Document] = set()
    parts = []
    for part in source.parts:
        documents = sorted({text for raw in part.documents() if (text := raw.strip())} - seen)
        seen.update(documents)
        if not documents:
            raise InputError(f"corpus.source: {source.name} holds no text")
        if len(documents) < 2:
            raise InputError(
                f"corpus.source: {source.name} is a single document, so nothing can be held out by document; "
                "separate documents with blank lines or use one record each (.jsonl)"
            )
        parts.append(documents)
    return parts


def _choose(documents: list[Document], share: float) -> set[int]:
    """In order, every document that still fits into ``share`` of the bytes; the shortest if none does."""
    sizes = [_bytes(text) for text in documents]
    room = share * sum(sizes)
    chosen: set[int] = set()
    for number, size in enumerate(sizes):
        if size <= room and len(chosen) < len(documents) - 1:
            chosen.add(number)
            room -= size
    return chosen or {min(range(len(sizes)), key=sizes.__getitem__)}


def _bytes(text: Document) -> int:
    return len(text.encode())
