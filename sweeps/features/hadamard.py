"""Hadamard matrices by the constructions of Sylvester and of Paley (I and II, over prime powers).

Sources: Sylvester 1867; Paley 1933, "On orthogonal matrices"; Kronecker products of Hadamard matrices are
Hadamard matrices.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.features.finite_field import differences_character, prime_power

Signs = NDArray[np.int8]


def hadamard(order: int) -> Signs:
    """Return a Hadamard matrix: entries +1 and -1, H H^T = order I, ``(order, order)``.

    Of the factorizations into orders that a construction gives, the one with the largest power of two is
    taken, so that 768 is Sylvester's 2 times Paley's 384.

    Raises:
        InputError: if neither construction gives the order.

    >>> hadamard(4)
    array([[ 1,  1,  1,  1],
           [ 1, -1,  1, -1],
           [ 1,  1, -1, -1],
           [ 1, -1, -1,  1]], dtype=int8)
    """
    factors = _factors(order)
    if factors is None:
        raise InputError(f"order: no Hadamard matrix of order {order} {_reason(order)}")
    matrix: Signs = np.ones((1, 1), dtype=np.int8)
    for factor in factors:
        matrix = np.kron(matrix, _base(factor))
    return matrix


def has_hadamard(order: int) -> bool:
    """Return True if :func:`hadamard` gives a matrix of this order."""
    return _factors(order) is not None


def _reason(order: int) -> str:
    if order < 1 or (order > 2 and order % 4):
        return "exists: orders are 1, 2 and multiples of 4; schur_horn_rotation serves any width"
    return "is known to Sylvester's and Paley's constructions; schur_horn_rotation serves any width"


@cache
def _factors(order: int) -> tuple[int, ...] | None:
    """Return orders with a construction of their own whose product is ``order``; None if there are none."""
    if order < 1 or (order > 2 and order % 4):
        return None
    if order <= 2 or not order & (order - 1):
        return (2,) * (order.bit_length() - 1)
    twos = (order & -order).bit_length() - 1
    for power in range(twos - 1, -1, -1):
        if _paley_kind(rest := order >> power):
            return (*(2,) * power, rest)
    for divisor in range(12, order // 12 + 1, 4):
        if order % divisor == 0 and _paley_kind(divisor) and (rest_of := _factors(order // divisor)):
            return (*rest_of, divisor)
    return None


def _paley_kind(order: int) -> int:
    """Return which of Paley's constructions gives ``order``: 1, 2, or 0 for none."""
    if order % 4:
        return 0
    if prime_power(order - 1):  # order - 1 is 3 modulo 4
        return 1
    return 2 if order // 2 % 4 == 2 and prime_power(order // 2 - 1) else 0


def _base(order: int) -> Signs:
    if order == 2:
        return np.array([[1, 1], [1, -1]], dtype=np.int8)
    return _paley_1(order - 1) if _paley_kind(order) == 1 else _paley_2(order // 2 - 1)


def _paley_1(q: int) -> Signs:
    """Return I + S of order q + 1, S skew-symmetric with S S^T = q I; q is 3 modulo 4."""
    return np.eye(q + 1, dtype=np.int8) + _bordered(q, -1)


def _paley_2(q: int) -> Signs:
    """Return the matrix of order 2 (q + 1) of a symmetric conference matrix; q is 1 modulo 4."""
    diagonal = np.array([[1, -1], [-1, -1]], dtype=np.int8)
    elsewhere = np.array([[1, 1], [1, -1]], dtype=np.int8)
    return np.kron(np.eye(q + 1, dtype=np.int8), diagonal) + np.kron(_bordered(q, 1), elsewhere)


def _bordered(q: int, column: int) -> Signs:
    """Return the conference matrix of order q + 1: quadratic characters of differences, with a border."""
    matrix = np.zeros((q + 1, q + 1), dtype=np.int8)
    matrix[0, 1:], matrix[1:, 0] = 1, column
    matrix[1:, 1:] = differences_character(q)
    return matrix
