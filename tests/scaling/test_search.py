import numpy as np
import pytest

from scaling.grid_search import first_reaching, minimize_on_grid
from scaling.repeated_data import REPETITION_CONSTANT, elasticity, repeated_tokens_value


def test_the_deeper_of_two_valleys_is_found_in_every_row():
    centres = np.array([[-3.0], [4.0]])

    def two_valleys(x):
        return np.minimum((x + 3) ** 2, (x - 4) ** 2) + 0.1 * np.abs(x - centres)

    found = minimize_on_grid(two_valleys, np.full((2, 1), -10.0), np.full((2, 1), 10.0))
    np.testing.assert_allclose(found, centres, atol=1e-3)


def test_infeasible_points_are_avoided_up_to_the_edge():
    found = minimize_on_grid(lambda x: np.where(x < 0.5, np.inf, x), np.zeros((1, 1)), np.ones((1, 1)))
    assert 0.5 <= found[0, 0] < 0.5001


def test_first_reaching_inverts_and_admits_defeat():
    low, high = np.zeros((1, 2)), np.full((1, 2), 10.0)
    found = first_reaching(lambda x: np.exp(-x) + np.array([[0.0, 1.0]]), 0.5, low, high)
    assert found[0, 0] == pytest.approx(np.log(2))
    assert np.isinf(found[0, 1])


def test_repeated_tokens():
    assert repeated_tokens_value(5e9, 1e10) == 5e9
    four_epochs = 1e10 * (1 + REPETITION_CONSTANT * (1 - np.exp(-3 / REPETITION_CONSTANT)))
    assert repeated_tokens_value(4e10, 1e10) == pytest.approx(four_epochs)
    assert repeated_tokens_value(1e15, 1e10) == pytest.approx(1e10 * (1 + REPETITION_CONSTANT))


@pytest.mark.parametrize("tokens", [5e9, 4e10, 3e11])
def test_elasticity_is_the_derivative(tokens):
    h = 1e-6
    up, down = (np.log(repeated_tokens_value(tokens * np.exp(s), 1e10)) for s in (h, -h))
    assert elasticity(tokens, 1e10) == pytest.approx((up - down) / (2 * h), rel=1e-6)
