"""Integers of a fixed number of bits, one after the other without gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDEST = 32
"""Most bits of an integer."""


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes that ``count`` integers of ``bits`` bits take."""
    return -(-count * bits // 8)


def pack_bits(values: NDArray[np.integer], bits: int) -> bytes:
    """Return ``values`` below 2^bits, lowest bits first, :func:`packed_bytes` long."""
    words = np.ascontiguousarray(values, dtype="<u4").reshape(-1, 1).view(np.uint8)
    each = np.unpackbits(words, axis=1, count=bits, bitorder="little")
    return np.packbits(each, bitorder="little").tobytes()


def unpack_bits(data: bytes | memoryview, count: int, bits: int) -> NDArray[np.uint32]:
    """Return the ``count`` integers that :func:`pack_bits` wrote."""
    each = np.zeros((count, WIDEST), np.uint8)
    read = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits, bitorder="little")
    each[:, :bits] = read.reshape(count, bits)
    found: NDArray[np.uint32] = np.packbits(each, axis=1, bitorder="little").view("<u4").reshape(count)
    return found
