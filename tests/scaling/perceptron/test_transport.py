"""Projection and partial steps: exact properties of optimal transport in one dimension."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from scaling import InputError
from scaling.perceptron import distributions as d
from scaling.perceptron.disco import Settings, disco_sgd
from scaling.perceptron.transport import (
    onto_signs,
    onto_sphere,
    partial_step,
    project,
    target_weights,
    wasserstein,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("q", [d.normal(), d.lognormal(1.0), d.ternary(0.3)], ids=lambda q: q.name)
def test_projection_is_the_target_in_the_order_of_the_weights(q: d.WeightDistribution) -> None:
    target, w = target_weights(q, 301), RNG.standard_normal(301)
    projected = project(w, target)
    assert np.sort(projected).tobytes() == target.tobytes()
    assert (np.diff(projected[np.argsort(w)]) >= 0).all()
    assert np.mean(target**2) == pytest.approx(1, abs=1e-12)
    assert project(projected, target).tobytes() == projected.tobytes()


def test_projection_is_the_nearest_permutation() -> None:
    for size in (2, 3, 5, 7):
        w, target = RNG.standard_normal(size), np.sort(RNG.standard_normal(size))
        best = min(permutations(target), key=lambda each: float(np.sum((np.array(each) - w) ** 2)))
        assert project(w, target).tolist() == list(best)


@pytest.mark.parametrize("eta", [0.05, 0.3, 0.9])
def test_a_partial_step_contracts_the_distance(eta: float) -> None:
    target, w = target_weights(d.laplace(), 400), 2 * RNG.standard_normal(400) + 0.3
    moved = partial_step(w, project(w, target), eta)
    assert wasserstein(moved, target) == pytest.approx((1 - eta) * wasserstein(w, target), rel=1e-12)


def test_whole_and_empty_steps() -> None:
    target, w = target_weights(d.uniform(), 50), RNG.standard_normal(50)
    assert partial_step(w, project(w, target), 0.0) is w
    whole = partial_step(w, project(w, target), 1.0)
    assert np.sort(whole).tobytes() == target.tobytes()
    assert partial_step(whole, project(whole, target), 1.0).tobytes() == whole.tobytes()


def test_other_constraints() -> None:
    w, signs = RNG.standard_normal(100), np.where(RNG.random(100) < 0.3, -1.0, 1.0)
    signed = onto_signs(signs)(w)
    assert (signed * signs >= 0).all()
    for projected in (signed, onto_sphere(w)):
        assert np.mean(projected**2) == pytest.approx(1, abs=1e-12)


def test_without_transport_the_constraint_does_not_touch_the_weights() -> None:
    """With eta = 0 the path of the weights is that of logistic regression, whatever the target; else it is not."""
    patterns, start = RNG.standard_normal((40, 60)), 0.01 * RNG.standard_normal(60)

    def path(q: d.WeightDistribution, eta: float) -> bytes:
        met: list[bytes] = []
        target = target_weights(q, 60)

        def recorded(weights: np.ndarray) -> np.ndarray:
            met.append(weights.tobytes())
            return project(weights, target)

        disco_sgd(patterns, recorded, start, Settings(steps=30, eta=eta))
        return b"".join(met)

    assert path(d.normal(), 0.0) == path(d.uniform(), 0.0)
    assert path(d.normal(), 0.1) != path(d.uniform(), 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: partial_step(np.ones(3), np.ones(3), 1.5), "eta: a transport step is a fraction from 0 to 1, not 1.5"),
        (lambda: Settings(eta=-0.1), "fraction from 0 to 1, not -0.1"),
        (lambda: Settings(eta=float("nan")), "fraction from 0 to 1, not nan"),
        (lambda: Settings(learning_rate=0.0), "learning_rate: must be a positive number, not 0"),
        (lambda: Settings(steps=0), "steps: must be at least 1, not 0"),
        (lambda: target_weights(d.normal().scaled(2.0), 10), "second moment must be 1, not 4"),
        (lambda: target_weights(d.normal(), 1), "at least 2 weights"),
        (lambda: disco_sgd(np.ones((3, 4)), onto_sphere, np.ones(5)), r"patterns of shape \(3, 4\)"),
        (lambda: disco_sgd(np.full((3, 4), np.nan), onto_sphere, np.ones(4)), "patterns must be finite"),
        (lambda: onto_signs(np.ones(3))(-np.ones(3)), "all 0"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]
