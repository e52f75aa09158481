"""Optimal transport of weights to a distribution: in one dimension, sorted quantiles assigned by rank."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scaling.errors import InputError
from scaling.perceptron.distributions import Array, WeightDistribution, unit_second_moment

Projection = Callable[[Array], Array]
"""Function that returns the nearest weights within a constraint."""


def target_weights(distribution: WeightDistribution, count: int) -> Array:
    """Return the quantiles at the midranks (r - 1/2) / N, ascending, scaled to unit second moment.

    A finite number of quantiles lacks part of the tails: at N = 200, a tenth of the second moment of a
    lognormal with s = 1. The scale restores it.

    Raises:
        InputError: For a count below 2, or a distribution without unit second moment.
    """
    if count < 2:
        raise InputError(f"count: at least 2 weights have a distribution, not {count}")
    return unit_second_moment(distribution.checked().quantile((np.arange(count) + 0.5) / count))


def project(weights: Array, target: Array) -> Array:
    """Return the rearrangement of ``target`` that is nearest to the weights.

    Args:
        weights: (N,).
        target: (N,), ascending.

    Returns:
        The target's values, assigned by the rank of the weights; equal weights in the order of their index.
    """
    moved = np.empty_like(target)
    moved[np.argsort(weights, kind="stable")] = target
    return moved


def onto(target: Array) -> Projection:
    """Return the projection onto all rearrangements of ``target``."""
    ascending = np.sort(target)
    return lambda weights: project(weights, ascending)


def onto_sphere(weights: Array) -> Array:
    """Return weights of unit second moment, without any other constraint."""
    return unit_second_moment(weights)


def onto_signs(signs: Array) -> Projection:
    """Return the projection onto weights of unit second moment and given signs; others become 0."""

    def projection(weights: Array) -> Array:
        return unit_second_moment(np.where(signs * weights > 0, weights, 0.0))

    return projection


def partial_step(weights: Array, projected: Array, eta: float) -> Array:
    """Return w + eta (w_hat - w), a step along the transport; eta = 0 returns the weights themselves.

    Raises:
        InputError: If eta is outside [0, 1].
    """
    check_eta(eta)
    if eta in (0, 1):
        return projected if eta else weights
    return np.asarray(weights + eta * (projected - weights), dtype=np.float64)


def check_eta(eta: float) -> None:
    """Check the fraction of the way that a transport step takes.

    Raises:
        InputError: If it is outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise InputError(f"eta: a transport step is a fraction from 0 to 1, not {eta:g}")


def wasserstein(weights: Array, target: Array) -> float:
    """Return W_2 between the empirical distributions of two vectors of equal length."""
    return float(np.sqrt(np.mean((np.sort(weights) - np.sort(target)) ** 2)))
