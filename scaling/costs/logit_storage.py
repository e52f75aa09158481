"""Bytes a token of a teacher's distributions in the layouts of a sweep's caches, before compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from scaling.errors import InputError
from scaling.units import parse_quantity

Kind = Literal["cached", "top-k", "top-p", "sampled"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Bits = Literal[8, 16]
BITS = (8, 16, None)
HALF = 16
"""Bits of a log-probability in half precision."""


def bits_for(count: int) -> int:
    """Return the bits that tell ``count`` values apart: ceil(log2 count), at least one.

    >>> bits_for(128_256)
    17
    """
    return max(1, (count - 1).bit_length())


def number_bits(most: int) -> int:
    """Return the bits of how many tokens are kept: whole bytes."""
    return 8 if most < 2**8 else 16


@dataclass(frozen=True, slots=True)
class LogitStorage:
    """Layout of a teacher's distributions.

    Raises:
        InputError: if it keeps more tokens than the vocabulary has, or fewer than one.
    """

    kind: Kind
    vocab: int
    kept: int = 0
    """Tokens of ``top-k``, at most of ``top-p``, draws of ``sampled``."""
    bits: Bits | None = None
    """Bits of a probability in the compact layout; ``top-k`` without them has whole bytes."""
    power: float = 1.0
    """Power of the proposal that tokens were drawn from; counts are kept at 1, else weights."""

    def __post_init__(self) -> None:
        most = {"top-k": self.vocab, "top-p": self.vocab, "sampled": 65_535}.get(self.kind, 0)
        if self.kind != "cached" and not 1 <= self.kept <= most:
            raise InputError(f"{self.kind}: must keep 1 to {most:,} tokens, not {self.kept:,}")

    @property
    def column_bits(self) -> tuple[int, ...]:
        """Bits a token of each column; each is rounded up to whole bytes once a block of the stream."""
        ids = self.kept * bits_for(self.vocab)
        if self.kind == "cached":
            return (HALF * self.vocab,)
        if self.kind == "sampled":
            weight = bits_for(self.kept) if self.power == 1 else HALF
            return number_bits(self.kept), self.kept * weight, ids
        if self.kind == "top-k" and self.bits is None:
            return HALF * (self.kept + 1), self.kept * (16 if self.vocab <= 2**16 else 32)
        numbers = number_bits(self.kept) if self.kind == "top-p" else 0
        return numbers, (self.bits or HALF) * (self.kept + 1), ids

    @property
    def bytes_per_token(self) -> float:
        """Bytes a token; of ``top-p`` and ``sampled`` the most, where every token kept is another."""
        return sum(self.column_bits) / 8

    def block_bytes(self, context: int) -> int:
        """Return the bytes of a block of ``context`` tokens, at most."""
        return sum(-(-context * bits // 8) for bits in self.column_bits)


def parse_logit_storage(given: str, vocab: int, name: str) -> LogitStorage:
    """Read ``cached``, ``top-k:32``, ``top-p:64`` or ``sampled:50``, with ``:8`` behind it for 8 bits.

    Args:
        given: What is kept.
        vocab: Size of the vocabulary.
        name: The option, for errors.

    Raises:
        InputError: for anything else, naming the option.
    """
    kind, *numbers = given.split(":")
    if kind not in KINDS or len(numbers) > 2 or (kind == "cached") == bool(numbers):
        raise InputError(
            f"{name}: {given!r} is none of full, a number of tokens, cached, top-k:32, top-k:32:8, top-p:64, "
            "top-p:64:8 and sampled:50"
        )
    values = [parse_quantity(each, name, "") for each in numbers]
    if not all(value.is_integer() for value in values):
        raise InputError(f"{name}: {given!r} must have whole numbers, as in top-k:32:8")
    count = int(values[0]) if values else 0
    bits = int(values[1]) if len(values) > 1 else None
    if bits not in BITS or (bits and kind == "sampled"):
        raise InputError(
            f"{name}: {given!r}: probabilities have 8 or 16 bits, as in top-k:32:8; sampled keeps counts"
        )
    return LogitStorage(kind, vocab, count, cast("Bits | None", bits))
