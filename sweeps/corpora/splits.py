"""Which documents are held out: whole ones, of every part its share, before anything is tokenised."""

from __future__ import annotations

import random
from dataclasses import dataclass

from scaling.errors import InputError
from sweeps.corpora.sources import Document, Part, Source

HELDOUT_BYTES = 600_000
"""Text held out of a large corpus unless a share is given: enough for a standard error below 0.3 %."""
LARGEST_SHARE = 0.15
"""Of a small corpus held out unless a share is given."""


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
