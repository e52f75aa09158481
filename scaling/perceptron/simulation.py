"""Simulated perceptrons, each from a seed: they learn random labels, or the rule of a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling.errors import InputError
from scaling.perceptron.disco import DiscoSolution, Settings, disco_sgd
from scaling.perceptron.distributions import Array, WeightDistribution
from scaling.perceptron.learning_curves import checked_noise, generalization_error
from scaling.perceptron.transport import Projection, onto, onto_signs, onto_sphere, target_weights

WEIGHTS = 400
"""Weights of a simulated perceptron where nothing else is said."""
FREE, SIGNS = "unconstrained", "signs"
"""Constraints on a student that are not a distribution."""
START_SPREAD = 0.01
"""Standard deviation of the weights before the first step, around the mean of their target."""


@dataclass(frozen=True)
class Trial:
    """Student of a teacher's rule, from one seed."""

    alpha: float
    """Patterns per weight."""
    overlap: float
    """R, the cosine between the student's and the teacher's weights."""
    error: float
    """epsilon_g that follows from R."""
    margin: float
    """Least margin over the patterns; positive if all are classified correctly."""


def learn_random_labels(
    distribution: WeightDistribution,
    alpha: float,
    seed: int,
    weights: int = WEIGHTS,
    settings: Settings | None = None,
) -> DiscoSolution:
    """Learn random labels of Gaussian patterns with weights of a given distribution.

    Args:
        distribution: Distribution of the weights.
        alpha: Patterns per weight.
        seed: Seed of patterns, labels and start.
        weights: N.
        settings: Settings of DisCo-SGD.

    Raises:
        InputError: For a load below one pattern, or a distribution without unit second moment.
    """
    rng, target = np.random.default_rng(seed), target_weights(distribution, weights)
    patterns = rng.standard_normal((_patterns(alpha, weights), weights))  # labels would only mirror them
    start = target.mean() + START_SPREAD * rng.standard_normal(weights)
    return disco_sgd(patterns, onto(target), start, settings)


def learn_teacher(
    teacher: WeightDistribution,
    student: WeightDistribution | str,
    alpha: float,
    seed: int,
    weights: int = WEIGHTS,
    noise: float = 0.0,
    settings: Settings | None = None,
) -> Trial:
    """Learn the labels that a teacher of a given distribution gives to Gaussian patterns.

    Args:
        teacher: Distribution of the teacher's weights, which are its quantiles in random order.
        student: Distribution of the student's weights, or ``"unconstrained"``, or ``"signs"`` for those of
            the teacher.
        alpha: Patterns per weight.
        seed: Seed of teacher, patterns and start.
        weights: N.
        noise: sigma, standard deviation of the noise on the teacher's field.
        settings: Settings of DisCo-SGD.

    Raises:
        InputError: For a load below one pattern, an unknown constraint, a negative noise, or a distribution
            without unit second moment.
    """
    rng = np.random.default_rng(seed)
    w_T = rng.permutation(target_weights(teacher, weights))
    patterns = rng.standard_normal((_patterns(alpha, weights), weights))
    field = patterns @ w_T / np.sqrt(weights) + checked_noise(noise) * rng.standard_normal(len(patterns))
    projection, center = _constraint(student, w_T)
    start = center + START_SPREAD * rng.standard_normal(weights)
    found = disco_sgd(np.where(field > 0, 1.0, -1.0)[:, None] * patterns, projection, start, settings)
    R = float(np.clip(found.weights @ w_T / weights, -1, 1))
    return Trial(alpha, R, float(generalization_error(R, noise)), found.margin)


def learn_over_loads(
    teacher: WeightDistribution,
    student: WeightDistribution | str,
    alphas: Sequence[float],
    seeds: Sequence[int],
    weights: int = WEIGHTS,
    settings: Settings | None = None,
) -> list[Trial]:
    """Return a trial for each load and seed, in that order."""
    return [
        learn_teacher(teacher, student, alpha, seed, weights, settings=settings)
        for alpha in alphas
        for seed in seeds
    ]


def _constraint(student: WeightDistribution | str, w_T: Array) -> tuple[Projection, Array | float]:
    """Return the projection of a student and the weights around which it starts."""
    if isinstance(student, WeightDistribution):
        target = target_weights(student, w_T.size)
        return onto(target), float(target.mean())
    if student == FREE:
        return onto_sphere, 0.0
    if student == SIGNS:
        signs = np.where(w_T < 0, -1.0, 1.0)
        return onto_signs(signs), signs
    raise InputError(f"student: a distribution, {FREE!r} or {SIGNS!r}, not {student!r}")


def _patterns(alpha: float, weights: int) -> int:
    count = round(alpha * weights) if np.isfinite(alpha) else 0
    if count < 1:
        raise InputError(
            f"alpha: {alpha:g} patterns per weight of {weights} weights are less than one pattern"
        )
    return count
