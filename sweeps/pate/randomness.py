"""Random numbers of a release: a stream for each attempt and purpose, opened once.

Each stream is a block of one counter-based generator (Philox), so that an attempt's numbers depend on the
key and its number alone, and no two attempts share any.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """Purpose of random numbers."""

    VOTES = 0
    """Exponentials that all teachers share, or the draws of each."""
    NOISE = 1
    """Noise of test and answer: the only numbers that must stay secret."""
    FILL = 2
    """Tokens of the public model where a query was refused."""


class OneTimeRandomness:
    """Streams of random numbers of one release.

    Args:
        key: Text with all that answers depend on, so that releases that could differ share no numbers.
        last: Number of the last attempt whose streams were opened before.
    """

    def __init__(self, key: str, last: int = -1) -> None:
        digest = hashlib.sha256(key.encode()).digest()
        self.key = np.frombuffer(digest[:16], np.uint64)
        self.last = last

    def open(self, number: int) -> tuple[np.random.Generator, np.random.Generator]:
        """Return the streams of attempt ``number``, for its votes and for its noise.

        Raises:
            ValueError: If those of this attempt, or of a later one, were opened before.
        """
        if number <= self.last:
            raise ValueError(f"random numbers of query {number} were drawn before; each is used once")
        self.last = number
        return self._stream(Purpose.VOTES, number), self._stream(Purpose.NOISE, number)

    def fill(self, group: int, position: int) -> np.random.Generator:
        """Return the stream of public tokens at a position of a group of sequences."""
        return self._stream(Purpose.FILL, group * 2**32 + position)

    def _stream(self, purpose: Purpose, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self.key, counter=[0, 0, number, purpose]))
