"""Distributions of weights, given by the monotone map that takes a standard normal variable to them.

A weight is ``Q^-1(Phi(x))`` with ``x`` standard normal and ``Q`` the distribution function. The map keeps the
digits of the tails that ``Q^-1(u)`` loses near ``u = 1``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad
from scipy.special import log_ndtr, ndtr, ndtri, stdtrit

from scaling.errors import InputError

Array = NDArray[np.float64]
Map = Callable[[Array], Array]

REACH = 38.0
"""Standard deviations of the normal variable that quadrature covers; the density beyond is 0 in float64."""
TAIL = 30.0
"""Standard deviations beyond which a map computed from tail probabilities is constant."""
MANY_JUMPS = 200
"""Number of jumps above which a mean is taken between all of them at once."""
QUADRATURE_TOLERANCE = 1e-7
"""Largest estimated error of a mean, relative above one."""
MOMENT_TOLERANCE = 1e-6
"""Largest departure of a second moment from one that counts as rounding."""


@dataclass(frozen=True)
class WeightDistribution:
    """Distribution of the weights of a perceptron.

    >>> round(uniform().gaussian_overlap, 6)
    0.977205
    >>> by_quantiles = WeightDistribution.from_quantiles("uniform", lambda u: np.sqrt(12) * (u - 0.5))
    >>> round(by_quantiles.gaussian_overlap, 6)
    0.977205
    """

    name: str
    from_normal: Map
    """Nondecreasing ``x -> Q^-1(Phi(x))``, element by element."""
    jumps: tuple[float, ...] = ()
    """Values of the normal variable at which the map jumps or bends; quadrature splits there."""

    @classmethod
    def from_quantiles(
        cls, name: str, quantile: Callable[[Array], Array], jumps: tuple[float, ...] = ()
    ) -> WeightDistribution:
        """Return the distribution with a quantile function ``Q^-1(u)`` on 0 < u < 1.

        Args:
            name: Name in tables and figures.
            quantile: Nondecreasing function of an array of probabilities.
            jumps: Probabilities at which the quantiles jump.

        Raises:
            InputError: If the quantiles fall somewhere or are not finite, or a jump is not between 0 and 1.
        """
        grid = (np.arange(1000) + 0.5) / 1000
        values = np.asarray(quantile(grid), dtype=np.float64)
        if values.shape != grid.shape or not np.isfinite(values).all() or (np.diff(values) < 0).any():
            raise InputError(
                f"distribution {name}: quantiles must be finite and nondecreasing in the probability, "
                "one for each entry of an array of probabilities"
            )
        if not all(0 < jump < 1 for jump in jumps):
            raise InputError(f"distribution {name}: jumps are probabilities between 0 and 1, not {jumps}")
        below_one = np.nextafter(1.0, 0.0)

        def from_normal(x: Array) -> Array:
            return np.asarray(quantile(np.clip(ndtr(x), 1e-300, below_one)), dtype=np.float64)

        return cls(name, from_normal, tuple(float(ndtri(jump)) for jump in jumps))

    @classmethod
    def from_weights(cls, name: str, weights: ArrayLike, normalize: bool = False) -> WeightDistribution:
        """Return the empirical distribution of some weights.

        Args:
            name: Name in tables and figures.
            weights: Finite numbers, of any shape.
            normalize: True to divide them by their root mean square first.

        Raises:
            InputError: If there is no weight, one is not finite, or all are zero and to be normalized.
        """
        values = np.sort(np.ravel(np.asarray(weights, dtype=np.float64)))
        if not values.size or not np.isfinite(values).all():
            raise InputError(f"distribution {name}: weights must be finite numbers, at least one")
        if normalize:
            values = unit_second_moment(values)
        edges = np.asarray(ndtri(np.arange(1, values.size) / values.size), dtype=np.float64)

        def from_normal(x: Array) -> Array:
            return values[np.searchsorted(edges, x, side="left")]

        return cls(name, from_normal, tuple(float(x) for x in edges[np.diff(values) > 0]))

    def scaled(self, factor: float) -> WeightDistribution:
        """Return the distribution of the weights times a factor.

        Raises:
            InputError: If the factor is 0 or not finite.
        """
        if not np.isfinite(factor) or not factor:
            raise InputError(f"distribution {self.name}: a scale must be finite and not 0, not {factor:g}")
        if factor > 0:
            return WeightDistribution(self.name, lambda x: factor * self.from_normal(x), self.jumps)
        mirrored = tuple(-x for x in reversed(self.jumps))
        return WeightDistribution(self.name, lambda x: factor * self.from_normal(-x), mirrored)

    def quantile(self, probability: ArrayLike) -> Array:
        """Return ``Q^-1(u)``."""
        return self.from_normal(np.asarray(ndtri(np.asarray(probability, dtype=np.float64))))

    def normal_mean(self, function: Callable[[Array, Array], Array]) -> float:
        """Return the mean of a function of the normal variable ``x`` and of the weight at ``x``.

        Raises:
            InputError: If quadrature does not converge.
        """
        if len(self.jumps) > MANY_JUMPS:
            return self._mean_over_steps(function)
        inner = [x for x in self.jumps if abs(x) < 8.0]
        edges = np.unique([-REACH, -8.0, -3.0, *inner, 0.0, 3.0, 8.0, 16.0, REACH])

        def integrand(x: float) -> float:
            at = np.array([x])
            return float((function(at, self.from_normal(at)) * normal_density(at))[0])

        options: dict[str, Any] = {"epsabs": 1e-11, "epsrel": 1e-10, "limit": 300, "full_output": 1}
        parts = [quad(integrand, a, b, **options)[:2] for a, b in pairwise(edges)]
        value, uncertainty = np.sum(parts, axis=0)
        if not uncertainty <= QUADRATURE_TOLERANCE * max(abs(value), 1.0):
            raise InputError(
                f"distribution {self.name}: a mean is known to {uncertainty:.1g} only; "
                "name the probabilities at which the quantiles jump, or use lighter tails"
            )
        return float(value)

    def _mean_over_steps(self, function: Callable[[Array, Array], Array]) -> float:
        """Return the mean by Gauss-Legendre quadrature between the jumps of an empirical distribution."""
        nodes, shares = np.polynomial.legendre.leggauss(12)
        edges = np.unique([*np.linspace(-12.0, 12.0, 49), *self.jumps])
        half = np.diff(edges)[:, None] / 2
        x = (edges[:-1, None] + half + half * nodes).ravel()
        weights = (half * shares).ravel() * normal_density(x)
        return float(weights @ function(x, self.from_normal(x)))

    @cached_property
    def second_moment(self) -> float:
        """Mean of the squared weight; the theory wants one."""
        return self.normal_mean(lambda _, w: w**2)

    @cached_property
    def mean(self) -> float:
        """Mean weight."""
        return self.normal_mean(lambda _, w: w)

    @cached_property
    def gaussian_overlap(self) -> float:
        """J, the integral of Q^-1(u) Phi^-1(u) over u: 1 for a standard Gaussian, else less.

        Source: arXiv 2206.08933, main text.
        """
        return self.normal_mean(lambda x, w: x * w)

    @cached_property
    def wasserstein(self) -> float:
        """W_2, the optimal-transport distance from a standard Gaussian: J = 1 - W_2^2 / 2."""
        return float(np.sqrt(self.normal_mean(lambda x, w: (w - x) ** 2)))

    def checked(self) -> WeightDistribution:
        """Return the distribution itself.

        Raises:
            InputError: If its second moment is not one.
        """
        if not abs(self.second_moment - 1) <= MOMENT_TOLERANCE:
            raise InputError(
                f"distribution {self.name}: the second moment must be 1, not {self.second_moment:.6g}; "
                f"divide the weights by {np.sqrt(self.second_moment):.6g}"
            )
        return self


def sample_overlap(weights: ArrayLike) -> float:
    """Return J of some weights, scaled to unit second moment: exact for their empirical distribution.

    It is the sum of w_(i) [phi(x_(i-1)) - phi(x_i)] over the weights in ascending order, with x_i the
    standard normal quantile at i / n. A sample of n Gaussian weights has slightly less than 1: 0.997 at
    n = 600.

    Raises:
        InputError: If there are fewer than two weights, one is not finite, or all are zero.

    >>> round(sample_overlap([-1, -1, 1, 1]), 6)
    0.797885
    """
    values = np.sort(np.ravel(np.asarray(weights, dtype=np.float64)))
    if values.size < 2 or not np.isfinite(values).all():
        raise InputError("weights: J needs at least two weights, all of them finite")
    density = normal_density(np.asarray(ndtri(np.arange(values.size + 1) / values.size)))
    return float(unit_second_moment(values) @ (density[:-1] - density[1:]))


def unit_second_moment(weights: Array) -> Array:
    """Return weights divided by their root mean square.

    Raises:
        InputError: If all of them are zero.
    """
    size = float(np.sqrt(np.mean(weights**2)))
    if not size > 0:
        raise InputError("weights that are all 0 cannot be scaled to unit second moment")
    return np.asarray(weights / size, dtype=np.float64)


def normal_density(x: Array) -> Array:
    """Return the density of a standard normal variable."""
    return np.asarray(np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), dtype=np.float64)


def _check_within(name: str, value: float, low: float, high: float) -> None:
    if not low < value <= high:
        raise InputError(f"{name} must be above {low:g} and at most {high:g}, not {value:g}")


def _symmetric(lower_tail: Map) -> Map:
    """Return the odd map that equals ``lower_tail`` at negative arguments, where no digits are lost."""
    return lambda x: -np.sign(x) * lower_tail(-np.abs(x))


def normal(sigma: float = 1.0) -> WeightDistribution:
    """Return N(sqrt(1 - sigma^2), sigma^2), with 0 < sigma <= 1: J = sigma."""
    _check_within("sigma of a normal distribution", sigma, 0.0, 1.0)
    name = "normal" if sigma == 1 else f"shifted normal, sigma={sigma:g}"
    return WeightDistribution(name, lambda x: np.sqrt(1 - sigma**2) + sigma * x)


def uniform() -> WeightDistribution:
    """Return the uniform distribution on -sqrt(3) to sqrt(3): J = sqrt(3 / pi)."""
    return WeightDistribution("uniform", lambda x: np.sqrt(3) * (2 * ndtr(x) - 1))


def laplace() -> WeightDistribution:
    """Return the Laplace distribution of scale 1 / sqrt(2)."""
    return WeightDistribution("Laplace", _symmetric(lambda x: (np.log(2) + log_ndtr(x)) / np.sqrt(2)), (0.0,))


def student_t(freedom: float = 5.0) -> WeightDistribution:
    """Return Student's t distribution with above 2 degrees of freedom, scaled to unit second moment."""
    _check_within("the degrees of freedom of Student's t", freedom, 2.0, 1e6)
    scale = np.sqrt((freedom - 2) / freedom)
    return WeightDistribution(
        f"Student t, {freedom:g} degrees of freedom",
        _symmetric(lambda x: scale * stdtrit(freedom, ndtr(np.maximum(x, -TAIL)))),
        (0.0,),
    )


def binary() -> WeightDistribution:
    """Return the distribution on -1 and 1: J = sqrt(2 / pi), though here replica symmetry does not hold."""
    return WeightDistribution("binary", lambda x: np.where(x > 0, 1.0, -1.0), (0.0,))


def ternary(nonzero: float) -> WeightDistribution:
    """Return the symmetric distribution on -a, 0 and a with a fraction of weights that are not zero."""
    _check_within("the fraction of nonzero weights", nonzero, 0.0, 1.0)
    edge, size = float(-ndtri(nonzero / 2)), 1 / np.sqrt(nonzero)
    return WeightDistribution(
        f"ternary, {nonzero:g} nonzero",
        lambda x: size * (np.asarray(x > edge, dtype=np.float64) - (x < -edge)),
        (-edge, edge),
    )


def rectified_normal() -> WeightDistribution:
    """Return sqrt(2) max(x, 0): the weights of a perceptron with sign constraints at capacity."""
    return WeightDistribution("rectified normal", lambda x: np.sqrt(2) * np.maximum(x, 0.0), (0.0,))


def half_normal() -> WeightDistribution:
    """Return the distribution of the magnitude of a standard normal variable."""
    return WeightDistribution("half-normal", lambda x: -ndtri(ndtr(-np.minimum(x, TAIL)) / 2))


def lognormal(s: float) -> WeightDistribution:
    """Return exp(s x - s^2), with 0 < s <= 5: J = s exp(-s^2 / 2)."""
    _check_within("s of a lognormal distribution", s, 0.0, 5.0)
    return WeightDistribution(f"lognormal, s={s:g}", lambda x: np.exp(s * x - s**2))


def symmetric_lognormal(s: float) -> WeightDistribution:
    """Return weights of either sign with lognormal magnitudes exp(s x - s^2), with 0 < s <= 5.

    J is .80 at s -> 0, where it is binary, has its maximum of .989 at s = .6, and then falls: .80 at 1.195,
    .60 at 1.515.
    """
    _check_within("s of a symmetric lognormal distribution", s, 0.0, 5.0)
    return WeightDistribution(
        f"symmetric lognormal, s={s:g}",
        _symmetric(lambda x: -np.exp(-s * ndtri(np.maximum(2 * ndtr(x), 1e-300)) - s**2)),
        (0.0,),
    )
