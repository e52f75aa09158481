"""Token ids in a file, one after the other: plain .bin, .bin with the header of llm.c, .npy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.data.files.source_files import SourceFile

LLM_C_HEADER_BYTES = 1024
"""Bytes of 256 int32: magic number, version, number of tokens, zeros."""
LLM_C = {20240520: (1, "<u2"), 20240801: (7, "<u4")}
"""Version and type of the ids by the magic number of llm.c (dev/data/data_common.py: GPT-2, Llama 3)."""
BLOCK = 2**20
"""Ids that are read at a time."""


@dataclass(frozen=True, slots=True)
class TokenArray:
    """Ids in a file, from a byte on."""

    file: SourceFile
    offset: int
    dtype: str
    count: int
    declared: bool
    """True if the file states its type, so that it cannot be another."""

    def read(self, start: int, count: int) -> NDArray[Any]:
        """Return ``count`` ids from ``start``, or those up to the end."""
        width = np.dtype(self.dtype).itemsize
        return self.file.array(self.offset + start * width, min(count, self.count - start), self.dtype)

    def blocks(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield all ids in blocks, each with the position of its first."""
        for start in range(0, self.count, BLOCK):
            yield start, self.read(start, BLOCK)

    def samples(self, number: int, size: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield blocks spread evenly from the first id to the last."""
        last = max(0, self.count - size)
        for start in sorted({n * last // max(1, number - 1) for n in range(number)}):
            yield start, self.read(start, size)


def plain_array(file: SourceFile, dtype: str) -> TokenArray:
    """Open a .bin file: with the header of llm.c, or ids of ``dtype`` only.

    Raises:
        InputError: If its length is no whole number of ids, or not that of its header.
    """
    head = np.frombuffer(file.read(0, LLM_C_HEADER_BYTES), dtype=np.uint8)
    if len(head) == LLM_C_HEADER_BYTES and int(head[:4].view("<i4")[0]) in LLM_C:
        return _llm_c_array(file, head.view("<i4"))
    width = np.dtype(dtype).itemsize
    if file.size % width:
        raise InputError(
            f"corpus.source: {file.name} has {file.size:,} bytes, no whole number of ids of {width} bytes: "
            "it is torn, or ids have another size (corpus.token_dtype)"
        )
    return TokenArray(file, 0, dtype, file.size // width, declared=False)


def _llm_c_array(file: SourceFile, head: NDArray[np.int32]) -> TokenArray:
    magic, version, count = (int(number) for number in head[:3])
    known, dtype = LLM_C[magic]
    if version != known:
        raise InputError(
            f"corpus.source: {file.name} has llm.c's header {magic} of version {version}; version {known} is "
            "read"
        )
    expected = LLM_C_HEADER_BYTES + count * np.dtype(dtype).itemsize
    if count < 0 or file.size != expected:
        raise InputError(
            f"corpus.source: {file.name}: its header states {count:,} tokens, so {expected:,} bytes, but it "
            f"has {file.size:,}: it is torn"
        )
    return TokenArray(file, LLM_C_HEADER_BYTES, dtype, count, declared=True)


def numpy_array(file: SourceFile) -> TokenArray:
    """Open a .npy file of integers, with one axis, or two that are read row by row.

    Raises:
        InputError: If it holds something else, or is torn.
    """
    try:
        with file.open() as opened:
            version = np.lib.format.read_magic(opened)
            reader = np.lib.format.read_array_header_1_0
            reader = reader if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(opened)
            offset = opened.tell()
    except ValueError as error:
        raise InputError(f"corpus.source: {file.name} is not a .npy file ({error})") from None
    if dtype.kind not in "iu" or len(shape) not in (1, 2) or (fortran and len(shape) == 2):
        raise InputError(
            f"corpus.source: {file.name} holds {dtype} of shape {shape}; token ids are integers with one "
            "axis, or two in C order"
        )
    count = int(np.prod(shape))
    expected = offset + count * dtype.itemsize
    if expected != file.size:
        raise InputError(
            f"corpus.source: {file.name} states {count:,} ids, so {expected:,} bytes, but has {file.size:,}: "
            "it is torn"
        )
    return TokenArray(file, offset, dtype.str, count, declared=True)
