"""Held-out split: whole documents of every part, chosen before tokenization."""

from __future__ import annotations

import random
from dataclasses import dataclass

from scaling.errors import InputError
from sweeps.data.sources import CorpusPart, Document, TextSource

HELDOUT_BYTES = 800_000
"""Bytes held out of a large corpus unless a share is given."""
MAX_HELDOUT_SHARE = 0.125
"""Largest share of a small corpus that is held out unless a share is given."""
ERROR_TIMES_ROOT_TOKENS = 1.33
"""Relative standard error of a held-out loss, times the square root of the tokens.

Measured over blocks of 128 tokens: 0.95 to 1.32 on ``kjv`` with vocabulary 512 (22k and 107k parameters),
1.1 on ``permissive`` with 4096 (56k, 107k). It is the error of a loss given the held-out documents, which all
runs share. The sampling of those documents adds an error that is common to all runs: two to six times as
large, but it hardly affects differences of runs (0.07 % of the loss between two runs 2 % apart).
"""
TARGET_STANDARD_ERROR = 0.003
"""Relative standard error of the loss that the held-out text should give."""


def standard_error(tokens: int) -> float:
    """Return the approximate relative standard error of a loss on ``tokens`` held-out tokens."""
    return ERROR_TIMES_ROOT_TOKENS * tokens**-0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class PartSplit:
    """Training and held-out documents of one part."""

    part: CorpusPart
    train: list[Document]
    heldout: list[Document]


def split_documents(source: TextSource, heldout: float | None, seed: int) -> list[PartSplit]:
    """Split every part into shuffled training and held-out documents, without exact duplicates.

    Args:
        source: documents.
        heldout: share of each part's bytes, in documents that fit into it; at least one document. If None,
            ``HELDOUT_BYTES`` of the whole, but at most ``MAX_HELDOUT_SHARE``.
        seed: seed of the order, and so of the choice.

    Raises:
        InputError: if a part has fewer than two different documents.
    """
    parts = _unique_documents(source)
    total = sum(_bytes(text) for documents in parts for text in documents)
    share = min(MAX_HELDOUT_SHARE, HELDOUT_BYTES / total) if heldout is None else heldout
    splits = []
    for part, documents in zip(source.parts, parts, strict=True):
        random.Random(seed).shuffle(documents)  # noqa: S311
        held = _choose_heldout(documents, share)
        splits.append(
            PartSplit(
                part=part,
                train=[text for number, text in enumerate(documents) if number not in held],
                heldout=[documents[number] for number in sorted(held)],
            )
        )
    return splits


def _unique_documents(source: TextSource) -> list[list[Document]]:
    """Return the documents of each part, sorted, without duplicates."""
    seen: set[Document] = set()
    parts = []
    for part in source.parts:
        documents = sorted({text for raw in part.documents() if (text := raw.strip())} - seen)
        seen.update(documents)
        if not documents:
            raise InputError(f"corpus.source: {source.name} holds no text")
        if len(documents) < 2:
            raise InputError(
                f"corpus.source: {source.name} is a single document, so no document can be held out; "
                "separate documents with blank lines or use one record each (.jsonl)"
            )
        parts.append(documents)
    return parts


def _choose_heldout(documents: list[Document], share: float) -> set[int]:
    """Choose, in order, the documents that fit into ``share`` of the bytes, or else the shortest."""
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
