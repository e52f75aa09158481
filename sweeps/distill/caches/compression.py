"""Zstandard frames with their length, from PyArrow."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

from fits.table.parquet import import_pyarrow

LENGTH = struct.Struct("<I")


def compress(data: bytes) -> bytes:
    """Return the length of ``data``, four bytes, and a Zstandard frame of it."""
    return LENGTH.pack(len(data)) + bytes(_zstd().compress(data, asbytes=True))


def decompress(frame: bytes | memoryview) -> bytes:
    """Return what :func:`compress` was given.

    Raises:
        ValueError: if the frame is damaged.
    """
    (length,) = LENGTH.unpack_from(frame)
    try:
        return bytes(_zstd().decompress(frame[LENGTH.size :], length, asbytes=True))
    except OSError as error:
        raise ValueError(str(error)) from None


@cache
def _zstd() -> Any:
    return import_pyarrow("logits: a compact cache").Codec("zstd", compression_level=3)
