"""Hadamard matrices of all orders that the constructions give, and rotations of any width."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scaling.errors import InputError
from sweeps.features import balancing_rotation, hadamard, has_hadamard, schur_horn_rotation
from sweeps.features.finite_field import prime_power, quadratic_character

UNKNOWN_TO_PALEY = {
    *(92, 116, 156, 172, 184, 188, 232, 236, 260, 268, 292, 324, 356, 372, 376, 404, 412, 428, 436, 452),
    *(472, 476, 508),
}
"""Multiples of 4 up to 512 that are not 2^e (q + 1), q an odd prime power or zero; a published list."""
WIDTHS = (768, 1024, 1152, 1280, 1408)
"""Widths of the paper's teachers."""


def test_orders_up_to_512_are_those_of_sylvester_and_paley() -> None:
    expected = {1, 2} | (set(range(4, 513, 4)) - UNKNOWN_TO_PALEY)
    assert {order for order in range(-4, 513) if has_hadamard(order)} == expected


@pytest.mark.parametrize(
    "order", [*(n for n in range(1, 257) if has_hadamard(n)), 340, 344, 384, *WIDTHS, 1536, 2048]
)
def test_rows_are_orthogonal_signs(order: int) -> None:
    matrix = hadamard(order)
    assert matrix.shape == (order, order)
    assert set(np.unique(matrix)) <= {-1, 1}
    exact = matrix.astype(np.float32)  # integers below 2^24
    assert np.array_equal(exact @ exact.T, order * np.eye(order, dtype=np.float32))


def test_products_of_paley_matrices_are_found() -> None:
    order = next(
        n
        for n in range(144, 4000, 16)
        if has_hadamard(n) and not any(n % 2**e == 0 and _paley(n >> e) for e in range(12))
    )
    matrix = hadamard(order).astype(np.float32)
    assert np.array_equal(matrix @ matrix.T, order * np.eye(order, dtype=np.float32))


def _paley(order: int) -> bool:
    one, two = order - 1, order // 2 - 1
    return order in (1, 2) or bool(
        order % 4 == 0 and (prime_power(one) or (order // 2 % 4 == 2 and prime_power(two)))
    )


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (92, "known to Sylvester's and Paley's"),
        (30, "multiples of 4"),
        (0, "multiples of 4"),
        (-8, "order -8"),
    ],
)
def test_an_order_without_a_matrix_is_refused(order: int, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        hadamard(order)


@pytest.mark.parametrize("q", [9, 25, 27, 49, 81, 125, 343])
def test_half_of_a_field_are_squares_and_minus_one_is_one_when_q_is_1_modulo_4(q: int) -> None:
    character = quadratic_character(q)
    p = prime_power(q)[0]  # type: ignore[index]
    assert (character.sum(), character[0], character[1]) == (0, 0, 1)
    assert character[p - 1] == (1 if q % 4 == 1 else -1)


def test_squares_of_a_prime_field_are_squares() -> None:
    assert {i for i in range(43) if quadratic_character(43)[i] == 1} == {i * i % 43 for i in range(1, 43)}


@pytest.mark.parametrize("q", [1, 12, 8])
def test_what_is_no_odd_prime_power_has_no_character(q: int) -> None:
    with pytest.raises(ValueError, match="no power of an odd prime"):
        quadratic_character(q)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 30, 92, 100, 116])
@pytest.mark.parametrize("kind", ["decaying", "one", "equal", "massive"])
def test_rotations_give_equal_diagonals_at_any_width(width: int, kind: str) -> None:
    values = {
        "decaying": torch.arange(1, width + 1, dtype=torch.float64) ** -2.0,
        "one": torch.eye(width, dtype=torch.float64)[0],
        "equal": torch.full((width,), 0.3, dtype=torch.float64),
        "massive": torch.eye(width, dtype=torch.float64)[0] * 1e8 + 1,
    }[kind]
    for rotation in (schur_horn_rotation(values), balancing_rotation(values)):
        assert torch.dist(rotation @ rotation.T, torch.eye(width, dtype=torch.float64)) < 1e-13 * width
        diagonal = (rotation @ torch.diag(values) @ rotation.T).diagonal()
        assert (diagonal / values.mean() - 1).abs().max() < 1e-12


def test_a_width_with_a_hadamard_matrix_needs_no_eigenvalues() -> None:
    first, second = torch.rand(2, 100, dtype=torch.float64)
    assert torch.equal(balancing_rotation(first), balancing_rotation(second))
    assert balancing_rotation(first).abs().unique().tolist() == [0.1]
