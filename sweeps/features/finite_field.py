"""Quadratic characters of finite fields GF(p^k), which Paley's constructions are made of."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray


def prime_power(q: int) -> tuple[int, int] | None:
    """Return ``(p, k)`` with p prime and p^k = q; None if q is no power of a prime.

    >>> prime_power(343), prime_power(12)
    ((7, 3), None)
    """
    if q < 2:
        return None
    p = next((each for each in range(2, int(q**0.5) + 1) if q % each == 0), q)
    k = 0
    while q % p == 0:
        q, k = q // p, k + 1
    return (p, k) if q == 1 else None


def quadratic_character(q: int) -> NDArray[np.int8]:
    """Return +1 for nonzero squares of GF(q), -1 for the other nonzero elements and 0 for zero, ``(q,)``.

    Element ``sum_i d_i p^i`` stands for the polynomial with coefficients ``d_i``. The powers of a primitive
    element run through all nonzero ones, squares and others in turn.

    Raises:
        ValueError: if q is no power of an odd prime.
    """
    found = prime_power(q)
    if found is None or found[0] == 2:
        raise ValueError(f"q: {q} is no power of an odd prime")
    character = np.zeros(q, dtype=np.int8)
    powers = _powers_of_primitive(*found)
    character[powers[0::2]], character[powers[1::2]] = 1, -1
    return character


def differences_character(q: int) -> NDArray[np.int8]:
    """Return the quadratic character of a - b for all elements a and b of GF(q), ``(q, q)``."""
    found = prime_power(q)
    assert found is not None
    p, k = found
    elements, differences = np.arange(q), np.zeros((q, q), dtype=np.int64)
    for place in (p**i for i in range(k)):
        digits = elements // place % p
        differences += (digits[:, None] - digits) % p * place
    return quadratic_character(q)[differences]


def _powers_of_primitive(p: int, k: int) -> list[int]:
    """Return the powers of x modulo the first monic polynomial of degree k for which x is primitive."""
    for tail in product(range(p), repeat=k):
        if tail[0] and len(powers := _powers(p, tail)) == p**k - 1:
            return powers
    raise AssertionError("every finite field has a primitive element")


def _powers(p: int, tail: tuple[int, ...]) -> list[int]:
    """Return x^0, x^1, ... up to the first that comes again, with x^k = sum_i tail_i x^i over GF(p)."""
    element, seen = (1,) + (0,) * (len(tail) - 1), []
    start = element
    while True:
        seen.append(sum(digit * p**i for i, digit in enumerate(element)))
        carry, shifted = element[-1], (0, *element[:-1])
        element = tuple((s + carry * t) % p for s, t in zip(shifted, tail, strict=True))
        if element == start:
            return seen
