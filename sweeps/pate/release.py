"""Release of one token from a histogram of votes, or none, with Gaussian noise.

Neighbors differ in one teacher's shard, which moves one vote at most: the count of the winner by 1, the
histogram by sqrt(2) in L2. That holds for coordinated votes as for independent ones, because what teachers
share is drawn without the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scaling.private.accounting import AttemptCost
from sweeps.pate.ensemble import Histogram


class ReleaseRule(Protocol):
    """Mechanism that releases a token or refuses."""

    @property
    def threshold(self) -> float:
        """Noisy votes that a released token needs."""

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise on each count, votes."""

    @property
    def cost(self) -> AttemptCost:
        """Cost of an attempt in zCDP."""

    def release(self, votes: Histogram, noise: np.random.Generator) -> int | None:
        """Return a token, or None for a refusal."""


@dataclass(frozen=True, slots=True)
class ConfidentGNMax:
    """Noisy test of the largest count, then noisy argmax (Papernot et al. 2018, arXiv 1802.08908)."""

    threshold: float
    """Noisy votes of the winner that pass the test, T."""
    test_sigma: float
    """Standard deviation of the test's noise, votes."""
    sigma: float
    """Standard deviation of the noise on each count before the argmax, votes."""

    @property
    def cost(self) -> AttemptCost:
        """Cost of an attempt in zCDP: 1/(2 sigma_1^2) always, 1/sigma_2^2 where it is answered."""
        return AttemptCost(test=_inverse(2 * self.test_sigma**2), answer=_inverse(self.sigma**2))

    def release(self, votes: Histogram, noise: np.random.Generator) -> int | None:
        """Return the token of the noisy argmax if the test passes."""
        if votes.max() + self.test_sigma * noise.standard_normal() < self.threshold:
            return None
        return int(np.argmax(votes + self.sigma * noise.standard_normal(len(votes))))


@dataclass(frozen=True, slots=True)
class HomogeneousRelease:
    """Noisy argmax where its noisy count exceeds a threshold above n/2: teachers are taken to be alike.

    With threshold n/2 + L it preserves diversity for tau = mu (n/2 + 2L), beta = ln(mu)/2, gamma = 2, if
    noise stays below L.
    """

    threshold: float
    sigma: float

    @property
    def cost(self) -> AttemptCost:
        """Cost in zCDP, 1/sigma^2 always: test and answer read one noisy histogram."""
        return AttemptCost(test=_inverse(self.sigma**2), answer=0.0)

    def release(self, votes: Histogram, noise: np.random.Generator) -> int | None:
        """Return the token of the largest noisy count if that exceeds the threshold."""
        noisy = votes + self.sigma * noise.standard_normal(len(votes))
        token = int(np.argmax(noisy))
        return token if noisy[token] > self.threshold else None


@dataclass(frozen=True, slots=True)
class HeterogeneousRelease:
    """Draw of a token in proportion to its noisy count, released where that reaches a threshold.

    With threshold 2L it preserves diversity for tau = 2 mu L, beta = ln(mu)/(2 mu), gamma = 1, if noise
    stays below L.
    """

    threshold: float
    sigma: float
    teachers: int

    @property
    def cost(self) -> AttemptCost:
        """Cost in zCDP, 1/sigma^2 always: the draw reads one noisy histogram."""
        return AttemptCost(test=_inverse(self.sigma**2), answer=0.0)

    def release(self, votes: Histogram, noise: np.random.Generator) -> int | None:
        """Return the drawn token if its noisy count reaches the threshold."""
        noisy = votes + self.sigma * noise.standard_normal(len(votes))
        kept = np.where(noisy >= self.threshold, noisy, 0.0).clip(0)
        at = np.cumsum(kept)
        place = noise.random() * max(float(self.teachers), float(at[-1]))
        return int(np.searchsorted(at, place, side="right")) if place < at[-1] else None


RULES = ("confident-gnmax", "homogeneous", "heterogeneous")


def release_rule(
    name: str, *, teachers: int, threshold: float, sigma: float, test_sigma: float | None = None
) -> ReleaseRule:
    """Return the rule called ``name``, one of :data:`RULES`; the test's noise is the answer's by default."""
    if name == "homogeneous":
        return HomogeneousRelease(threshold, sigma)
    if name == "heterogeneous":
        return HeterogeneousRelease(threshold, sigma, teachers)
    return ConfidentGNMax(threshold, sigma if test_sigma is None else test_sigma, sigma)


def _inverse(variance: float) -> float:
    return 1 / variance if variance else math.inf
