"""Capacity: how many random patterns per weight a perceptron with a given distribution of weights can learn.

The replica-symmetric solution of arXiv 2206.08933: alpha_c(kappa) = alpha_0(kappa) J^2, where alpha_0 is the
capacity without a constraint (Gardner 1988) and J the overlap of the distribution with a Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from scaling.errors import InputError
from scaling.perceptron.distributions import MOMENT_TOLERANCE, Array, WeightDistribution, normal_density


def unconstrained_capacity(margin: ArrayLike = 0.0) -> Array:
    """Return alpha_0(kappa) = 1 / [(1 + kappa^2) Phi(kappa) + kappa phi(kappa)], patterns per weight.

    Args:
        margin: kappa, the least distance of a pattern from the boundary, patterns having unit variance.

    Raises:
        InputError: For a margin that is negative or not finite: there replica symmetry does not hold.

    >>> unconstrained_capacity([0.0, 1.0]).round(6).tolist()
    [2.0, 0.519572]
    """
    kappa = np.asarray(margin, dtype=np.float64)
    if not (np.isfinite(kappa) & (kappa >= 0)).all():
        raise InputError(f"margin: a margin is a finite number, 0 or more, not {kappa.tolist()}")
    return np.asarray(1 / positive_square(kappa), dtype=np.float64)


def positive_square(shift: Array) -> Array:
    """Return the mean of max(shift + t, 0)^2 over a standard normal t."""
    return np.asarray((1 + shift**2) * ndtr(shift) + shift * normal_density(shift), dtype=np.float64)


def capacity(distribution: WeightDistribution, margin: ArrayLike = 0.0) -> Array:
    """Return alpha_c(kappa) = alpha_0(kappa) J^2, patterns per weight.

    Raises:
        InputError: If the distribution's second moment is not one, or for a negative margin.

    >>> from scaling.perceptron.distributions import lognormal
    >>> float(capacity(lognormal(1.0)).round(6))
    0.735759
    """
    return unconstrained_capacity(margin) * distribution.checked().gaussian_overlap ** 2


def population_capacity(
    populations: Sequence[tuple[float, WeightDistribution]], margin: ArrayLike = 0.0
) -> Array:
    """Return alpha_0(kappa) (sum of g_m J_m)^2 for populations of weights with distributions of their own.

    Args:
        populations: Fraction g_m of the weights and their distribution, in the units of the whole.
        margin: kappa.

    Raises:
        InputError: If fractions are not positive with sum 1, or the second moment of all weights is not 1.
    """
    fractions = np.array([fraction for fraction, _ in populations], dtype=np.float64)
    if not fractions.size or not (fractions > 0).all() or abs(fractions.sum() - 1) > 1e-9:
        raise InputError(f"populations: fractions must be positive with sum 1, not {fractions.tolist()}")
    moment = sum(fraction * each.second_moment for fraction, each in populations)
    if not abs(moment - 1) <= MOMENT_TOLERANCE:
        raise InputError(f"populations: the second moment of all weights must be 1, not {moment:.6g}")
    overlap = sum(fraction * each.gaussian_overlap for fraction, each in populations)
    return unconstrained_capacity(margin) * overlap**2


def balanced_lognormal_capacity(
    sigma_E: ArrayLike, sigma_I: ArrayLike, excitatory: float, margin: float = 0.0
) -> Array:
    """Return the capacity with lognormal excitatory and inhibitory weights of equal total strength.

    It is alpha_0 (sigma_E + sigma_I)^2 / (exp(sigma_E^2) / g_E + exp(sigma_I^2) / g_I).

    Args:
        sigma_E: Standard deviations of the logarithm of excitatory weights.
        sigma_I: The same of inhibitory weights; broadcasts against ``sigma_E``.
        excitatory: g_E, the fraction of excitatory weights, between 0 and 1.
        margin: kappa.

    Raises:
        InputError: For a fraction that is not between 0 and 1, or a negative deviation.
    """
    wide_E, wide_I = np.asarray(sigma_E, dtype=np.float64), np.asarray(sigma_I, dtype=np.float64)
    if not 0 < excitatory < 1:
        raise InputError(f"excitatory: the fraction must be between 0 and 1, not {excitatory:g}")
    if not ((wide_E >= 0).all() and (wide_I >= 0).all()):
        raise InputError("sigma_E, sigma_I: standard deviations must be 0 or more")
    squares = np.exp(wide_E**2) / excitatory + np.exp(wide_I**2) / (1 - excitatory)
    return unconstrained_capacity(margin) * (wide_E + wide_I) ** 2 / squares
