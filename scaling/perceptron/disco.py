"""DisCo-SGD: logistic steps alternating with partial optimal-transport steps (arXiv 2206.08933).

The authors' settings were not available; these defaults are this project's, and they solve random patterns up
to about 0.8 of the capacity at 400 weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from scaling.errors import InputError
from scaling.perceptron.distributions import Array
from scaling.perceptron.transport import Projection, check_eta, partial_step


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of DisCo-SGD.

    Raises:
        InputError: For an eta outside [0, 1], a learning rate or gain that is not positive, or no step.
    """

    steps: int = 6000
    learning_rate: float = 0.05
    """At the first step; it falls linearly to 0."""
    eta: float = 0.05
    """Fraction of the transport taken after each logistic step."""
    final_gain: float = 100.0
    """Gain of the logits at the last step; it rises exponentially from 1."""
    check_every: int = 50
    """Steps between evaluations of the projected weights."""

    def __post_init__(self) -> None:
        check_eta(self.eta)
        for name, value in (("learning_rate", self.learning_rate), ("final_gain", self.final_gain)):
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name}: must be a positive number, not {value:g}")
        for name, count in (("steps", self.steps), ("check_every", self.check_every)):
            if count < 1:
                raise InputError(f"{name}: must be at least 1, not {count}")


@dataclass(frozen=True)
class DiscoSolution:
    """Weights of the largest margin among those within the constraint that DisCo-SGD met."""

    weights: Array
    """(N,), of unit second moment."""
    margin: float
    """Least margin over the patterns, kappa; positive if all are classified correctly."""

    @property
    def solved(self) -> bool:
        """True if every pattern is classified correctly."""
        return self.margin > 0


def disco_sgd(
    signed_patterns: Array, projection: Projection, start: Array, settings: Settings | None = None
) -> DiscoSolution:
    """Learn patterns with weights within a constraint.

    Args:
        signed_patterns: (P, N), every pattern times its label.
        projection: Constraint on the weights: :mod:`scaling.perceptron.transport` has three.
        start: (N,) weights before the first step.
        settings: Steps and rates.

    Returns:
        The projected weights of the largest margin; projected weights are evaluated, never those in between.

    Raises:
        InputError: If the shapes disagree or a pattern is not finite.
    """
    settings = settings or Settings()
    if signed_patterns.ndim != 2 or signed_patterns.shape[1:] != start.shape or not len(signed_patterns):
        raise InputError(
            f"patterns of shape {signed_patterns.shape} and weights of shape {start.shape}: "
            "expected (patterns, weights) and (weights,)"
        )
    if not np.isfinite(signed_patterns).all():
        raise InputError("patterns must be finite numbers")
    weights, best = start, DiscoSolution(projection(start), -np.inf)
    root = np.sqrt(start.size)
    for step in range(settings.steps):
        progress = step / settings.steps
        errors = expit(-(settings.final_gain**progress) * (signed_patterns @ weights) / root)
        pull = (errors @ signed_patterns) / (root * max(errors.mean(), 1e-300))
        weights = weights + settings.learning_rate * (1 - progress) * pull
        projected = projection(weights)
        weights = partial_step(weights, projected, settings.eta)
        if step % settings.check_every == 0 or step == settings.steps - 1:
            margin = float((signed_patterns @ projected).min() / root)
            best = DiscoSolution(projected, margin) if margin > best.margin else best
    return best
