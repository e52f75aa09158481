"""Distribution of weights with which a student generalizes best at each load (this project's derivation).

The weights of a student with a distribution are a nondecreasing function f of the field h = g + lambda w_T
(``learning_curves.py``), and lambda is the maximum of kappa if

    lambda M = alpha (s E[y (a Phi(a) + phi(a))] + R E[Phi(a)]),  a = (kappa - R y) / s,  s = sqrt(1 - R^2).

R and M are linear in f, so the f of the largest R that meets this is a combination of the posterior means
E[w_T | h] and E[g | h], whose moments follow from A = E[E[w_T | h]^2] alone. With the angle theta between f
and E[w_T | h], R = sqrt(A) cos(theta): one lambda for each theta, and a search over theta.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq, minimize_scalar
from scipy.special import ndtr

from scaling.errors import InputError
from scaling.perceptron.distributions import Array, WeightDistribution, normal_density
from scaling.perceptron.learning_curves import (
    GRID,
    LearningCurve,
    field_nodes,
    generalization_error,
    largest_margin,
    loads,
    stationarity,
)
from scaling.perceptron.transport import target_weights

POSTERIOR_LAMBDAS = np.geomspace(1e-3, 1e2, 51)
"""Values of lambda at which the posterior mean is computed."""
SPACING = 0.1
"""Step of the trapezoidal rule over h, in standard deviations of g; the rule converges exponentially."""
ANGLES = np.linspace(-0.5, 1.2, 18)
"""Angles theta that are tried before the best is refined, radians."""


@dataclass(frozen=True)
class OptimalStudent:
    """Students of the best distribution at each load."""

    curve: LearningCurve
    distributions: tuple[WeightDistribution, ...]
    """The best distribution at each load, as quantiles scaled to unit second moment."""


def optimal_student(alpha: ArrayLike, teacher: WeightDistribution, grid: int = GRID) -> OptimalStudent:
    """Return the distribution of weights that generalizes best, at each load, and its learning curve.

    Args:
        alpha: Patterns per weight, positive.
        teacher: Distribution of the teacher's weights; labels are without noise.
        grid: Quantiles that stand for it.

    Raises:
        InputError: For a load that is not positive, or a teacher whose weights are all equal.
    """
    w_T = target_weights(teacher, grid)
    if np.ptp(w_T) == 0:
        raise InputError(
            f"distribution {teacher.name}: a teacher whose weights are all equal leaves no choice"
        )
    channel, wanted = _Channel(w_T), loads(alpha)
    places = [channel.best(load) for load in wanted]
    overlaps = [channel.overlaps(*place) for place in places]
    R = np.array([each[0][0] for each in overlaps])
    kappa = np.array(
        [largest_margin(load, *each, channel.fields)[0] for load, each in zip(wanted, overlaps, strict=True)]
    )
    named = tuple(
        channel.distribution(f"best at {load:g} patterns per weight", *place)
        for load, place in zip(wanted, places, strict=True)
    )
    return OptimalStudent(LearningCurve(wanted, R, generalization_error(R), kappa), named)


class _Channel:
    """Gaussian channel h = g + lambda w_T, with the moments of its posterior means."""

    def __init__(self, w_T: Array) -> None:
        self.w_T, self.fields = w_T, field_nodes(0.0)
        variance = np.array([1 - self._squared_mean(lam) for lam in POSTERIOR_LAMBDAS])
        kept = variance > 1e-12
        axis = np.log(POSTERIOR_LAMBDAS[kept])
        self._bounds = float(axis[0]), float(axis[-1])
        self._log_variance = CubicSpline(axis, np.log(variance[kept]))

    def _joint(self, lam: float) -> tuple[Array, Array]:
        """Return values of h and its joint density with each w_T, (h, w_T)."""
        h = np.arange(lam * self.w_T[0] - 9, lam * self.w_T[-1] + 9, SPACING)
        return h, normal_density(h[:, None] - lam * self.w_T) / self.w_T.size

    def _squared_mean(self, lam: float) -> float:
        _, joint = self._joint(lam)
        return float(np.sum((joint @ self.w_T) ** 2 / np.maximum(joint.sum(axis=1), 1e-300)) * SPACING)

    def _moments(self, lam: float) -> tuple[float, float, float]:
        """Return sqrt(A), and the overlaps with g of the two orthonormal parts of f."""
        variance = float(np.exp(self._log_variance(np.log(lam))))
        A, B, C = 1 - variance, lam * variance, 1 - lam**2 * variance
        return float(np.sqrt(A)), float(B / np.sqrt(A)), float(np.sqrt(max(C - B**2 / A, 0.0)))

    def overlaps(self, lam: float, theta: float) -> tuple[Array, Array]:
        """Return R and M of the student f of an angle, each of shape (1,)."""
        root, along, across = self._moments(lam)
        return np.array([root * np.cos(theta)]), np.array([along * np.cos(theta) + across * np.sin(theta)])

    def _lambda(self, load: float, theta: float) -> float | None:
        """Return the lambda that maximizes kappa, given the angle; None if there is none."""

        def excess(x: float) -> float:
            lam = float(np.exp(x))
            return float(stationarity(load, np.array([lam]), *self.overlaps(lam, theta), self.fields)[0])

        low, high = self._bounds
        if excess(low) > 0 or excess(high) < 0:
            return None
        return float(np.exp(brentq(excess, low, high, xtol=1e-10)))

    def best(self, load: float) -> tuple[float, float]:
        """Return lambda and the angle at the largest R."""

        def loss(theta: float) -> float:
            lam = self._lambda(load, theta)
            return 1.0 if lam is None else -float(self.overlaps(lam, theta)[0][0])

        at = int(np.argmin([loss(theta) for theta in ANGLES]))
        bounds = ANGLES[max(at - 1, 0)], ANGLES[min(at + 1, ANGLES.size - 1)]
        theta = float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
        lam = self._lambda(load, theta)
        if lam is None:
            raise InputError(
                f"alpha: at a load of {load:g} the best distribution is beyond the range of lambda"
            )
        return lam, theta

    def distribution(self, name: str, lam: float, theta: float) -> WeightDistribution:
        """Return the law of f(h)."""
        h, joint = self._joint(lam)
        mean = (joint @ self.w_T) / np.maximum(joint.sum(axis=1), 1e-300)
        root, along, across = self._moments(lam)
        other = (h - lam * mean - along / root * mean) / across
        f = np.maximum.accumulate(np.cos(theta) * mean / root + np.sin(theta) * other)
        below = ndtr(h[:, None] - lam * self.w_T).mean(axis=1)
        midranks = (np.arange(self.w_T.size) + 0.5) / self.w_T.size
        return WeightDistribution.from_weights(name, np.interp(midranks, below, f), normalize=True)
