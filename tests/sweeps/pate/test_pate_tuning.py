"""Choice of threshold and noise on public text: parts of the simulated text, and what public tokens change."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from sweeps.pate import (
    ConfidentGNMax,
    DenseEnsemble,
    OneTimeRandomness,
    PrivacyBudget,
    PublicPosition,
    epsilon_of,
)
from sweeps.pate.tuning import _parts, choose_release, with_likely_tokens

V, N, POSITIONS = 24, 200, 600
UNIFORM = np.full(V, 1 / V)


def chain(known: float, public: float = 0.0) -> Iterator[PublicPosition]:
    """Text in which token t + 1 follows token t, known to a share of the teachers, and to the public model."""
    rows = np.tile(UNIFORM, (N, 1))
    for at in range(POSITIONS):
        token = (at + 1) % V
        p = rows.copy()
        p[: int(known * N)] = np.eye(V)[token]
        own = (1 - public) * UNIFORM + public * np.eye(V)[token]
        yield PublicPosition(DenseEnsemble(p), at % V, token, own)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((100, 30, 0), (30, 0)),  # the budget's own text, whole
        ((100, 30, 50), (30, 20)),  # and what the public model adds
        ((100, 30, 300), (10, 90)),  # a third of a text of 300
        ((100, 400, 300), (100, 0)),  # nothing is added to a longer one
        ((100, math.inf, 0), (100, 0)),
        ((100, 0, 0), (0, 0)),
    ],
)
def test_parts_of_a_simulated_text(asked: tuple[int, float, float], expected: tuple[int, int]) -> None:
    assert _parts(*asked) == expected


def choice(text_tokens: int, public: float) -> int:
    """Number of the better rule: 0 releases few right tokens, 1 many of which noise draws most."""
    rules = [ConfidentGNMax(0.0, 10, 10), ConfidentGNMax(0.0, 130, 130)]
    return choose_release(
        chain(0.9, public),
        rules,
        votes="hot",
        budget=PrivacyBudget(epsilon_of(rules[0].cost.whole * 24, 1e-5), 1e-5),
        queries=1e9,
        fill=True,
        text_tokens=text_tokens,
        randomness=OneTimeRandomness("choice"),
    )


def test_tokens_that_the_public_model_adds_are_part_of_the_text() -> None:
    """Alone, 24 right tokens teach less than thousands of noisy ones; beside a good public model they win."""
    assert choice(0, 0.9) == 1
    assert choice(POSITIONS, 0.9) == 0


def test_likely_tokens_are_counted_at_every_position() -> None:
    found: list[float] = []
    places = list(with_likely_tokens(chain(0.5), found))
    assert len(found) == len(places) == POSITIONS
    assert found[0] == pytest.approx(1 / (0.5 + 0.5 / V))
