"""Decoder of protocol buffers' wire format: fields by number, without schema or package.

Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""


class Malformed(ValueError):
    """Bytes that are no message."""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and content of each field: an integer, or the bytes of any other type.

    Raises:
        Malformed: if the bytes end within a field, or have an unknown wire type.
    """
    place, end = 0, len(message)
    while place < end:
        key, place = varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = varint(message, place)
            yield number, value
            continue
        if kind == BYTES:
            length, place = varint(message, place)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise Malformed(f"wire type {kind}")
        if place + length > end:
            raise Malformed("the message is cut off")
        yield number, message[place : place + length]
        place += length


def varint(message: bytes, place: int) -> tuple[int, int]:
    """Return the integer of variable length at a place, and the place after it."""
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise Malformed("an integer is cut off")
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if not byte & 0x80:
            return value, place
        shift += 7


def signed(value: int | bytes) -> int:
    """Return an int64 that was encoded as an unsigned integer."""
    if not isinstance(value, int):
        raise Malformed("not an integer")
    return value - (1 << 64) if value >= 1 << 63 else value


def number(value: int | bytes) -> float:
    """Return a float or double from its bytes."""
    if not isinstance(value, bytes) or len(value) not in (4, 8):
        raise Malformed("not a number")
    return float(struct.unpack("<f" if len(value) == 4 else "<d", value)[0])


def text(value: int | bytes) -> str:
    """Return a string."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
