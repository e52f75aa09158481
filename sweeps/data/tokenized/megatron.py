"""Indexed datasets of Megatron-LM: ids in a .bin, documents in the .idx beside it.

The .idx (version 1, little-endian): ``MMIDIDX`` and two zero bytes, version (8 bytes), code of the type (1),
number of sequences n (8), length of the list of documents m (8), n lengths in ids (4 each), n offsets in
bytes (8 each), and the list of documents (8 each): m numbers of sequences, the first 0 and the last n, at
which documents begin and end. Multimodal sets have n modes (1 each) behind it, and are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.data.files.source_files import SourceFile
from sweeps.data.tokenized.token_array import BLOCK, TokenArray

MAGIC, LEGACY = b"MMIDIDX\x00\x00", b"TNTIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: "|u1", 2: "|i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
"""Types of ids by their code; 6 and 7 are floating-point numbers."""


@dataclass(frozen=True, slots=True)
class IndexedDocuments:
    """Ids of a .bin and its index."""

    tokens: TokenArray
    index: SourceFile
    sequences: int
    listed: int
    """Entries of the list of documents: one more than documents."""

    def documents(self) -> Iterator[list[tuple[int, NDArray[Any]]]]:
        """Yield the ids of each document, in blocks with the position of their first.

        Raises:
            InputError: If the index is not that of the .bin.
        """
        begin = 0
        for end in self._ends():
            starts = range(begin, end, BLOCK)
            yield [(start, self.tokens.read(start, min(BLOCK, end - start))) for start in starts]
            begin = end

    def _ends(self) -> Iterator[int]:
        """Yield the position at which each document ends."""
        first, position = self._list_of_documents(0, 1)[0], 0
        done = 1
        if first != 0:
            raise self._wrong("documents begin after the first sequence")
        before = 0
        while done < self.listed:
            numbers = self._list_of_documents(done, min(BLOCK, self.listed - done)).astype(np.int64)
            if (np.diff(numbers, prepend=before) < 0).any() or numbers[-1] > self.sequences:
                raise self._wrong("the list of documents does not ascend")
            ends = position + np.cumsum(self._lengths(before, int(numbers[-1]) - before), dtype=np.int64)
            at = numbers - before
            yield from np.concatenate([[position], ends])[at].tolist()
            position = int(ends[-1]) if len(ends) else position
            done, before = done + len(numbers), int(numbers[-1])
        if before != self.sequences or position != self.tokens.count:
            raise self._wrong(
                f"its documents have {position:,} ids in {before:,} sequences, {self.tokens.file.name} has "
                f"{self.tokens.count:,}, and the header states {self.sequences:,}"
            )

    def require_length(self) -> None:
        """Check that the last sequence ends where the .bin does.

        Raises:
            InputError: If not, as of a torn file.
        """
        if not self.sequences:
            raise InputError(f"corpus.source: {self.tokens.file.name} holds no text")
        last = self.sequences - 1
        offset = self.index.array(HEADER.size + 4 * self.sequences + 8 * last, 1, "<i8")[0]
        length = self.index.array(HEADER.size + 4 * last, 1, "<i4")[0]
        end = int(offset) + int(length) * np.dtype(self.tokens.dtype).itemsize
        if end != self.tokens.file.size:
            raise InputError(
                f"corpus.source: {self.tokens.file.name} has {self.tokens.file.size:,} bytes, but by "
                f"{self.index.name} its last sequence ends at {end:,}: it is torn, or the index is another's"
            )

    def _lengths(self, start: int, count: int) -> NDArray[Any]:
        """Return lengths of sequences, which must follow each other without gaps."""
        lengths = self.index.array(HEADER.size + 4 * start, count, "<i4")
        offsets = self.index.array(HEADER.size + 4 * self.sequences + 8 * start, count, "<i8")
        width = np.dtype(self.tokens.dtype).itemsize
        apart = np.diff(offsets) != lengths[:-1].astype(np.int64) * width
        if (lengths < 0).any() or apart.any():
            raise self._wrong("lengths and offsets of sequences do not fit together")
        return lengths

    def _list_of_documents(self, start: int, count: int) -> NDArray[Any]:
        return self.index.array(HEADER.size + 12 * self.sequences + 8 * start, count, "<i8")

    def _wrong(self, reason: str) -> InputError:
        return InputError(f"corpus.source: {self.index.name}: {reason}; write both files again")


def indexed_documents(tokens: SourceFile, index: SourceFile) -> IndexedDocuments:
    """Open a .bin and its .idx.

    Raises:
        InputError: If the index is of another format or version, torn, or not that of the .bin.
    """
    head = index.read(0, HEADER.size)
    where = f"corpus.source: {index.name}"
    if head.startswith(LEGACY):
        raise InputError(f"{where} has Megatron's legacy format; write it with the implementation mmap")
    if not head.startswith(MAGIC[: len(head)]) or not head:
        raise InputError(f"{where} is no index of Megatron: it does not begin with MMIDIDX")
    if len(head) < HEADER.size:
        raise InputError(f"{where} is torn: {len(head)} bytes, {HEADER.size} are the header alone")
    _, version, code, sequences, listed = HEADER.unpack(head)
    if version != 1:
        raise InputError(f"{where} has version {version}; version 1 is read")
    if code not in DTYPES:
        raise InputError(f"{where} states type {code}, which is no integer of token ids ({sorted(DTYPES)})")
    expected = HEADER.size + 12 * sequences + 8 * listed
    if index.size == expected + sequences and sequences:
        raise InputError(f"{where} has modes of sequences, as multimodal data; only text is read")
    if index.size != expected or listed < 1:
        raise InputError(
            f"{where} states {sequences:,} sequences and {listed:,} entries of documents, so {expected:,} "
            f"bytes, but has {index.size:,}: it is torn"
        )
    width = np.dtype(DTYPES[code]).itemsize
    if tokens.size % width:
        raise InputError(
            f"corpus.source: {tokens.name} has {tokens.size:,} bytes, no whole number of ids of {width} bytes"
        )
    array = TokenArray(tokens, 0, DTYPES[code], tokens.size // width, declared=True)
    found = IndexedDocuments(array, index, sequences, listed)
    found.require_length()
    return found
