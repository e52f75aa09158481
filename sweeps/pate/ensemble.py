"""Distributions of n teachers over the next token, and their votes: coordinated, or independent.

Coordinated (hot) votes share one exponential number a token, y_i = argmax_j p_ij / u_j: each is distributed
as its teacher says, and alike teachers vote alike (Cohen et al. 2023, arXiv 2312.02132). Independent (cold)
votes are drawn by each teacher alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError

Floats = NDArray[np.float64]
Histogram = NDArray[np.int64]
"""Votes for each token, ``(vocab,)``."""
Number = TypeVar("Number", np.int64, np.float64)
TINY = np.finfo(np.float64).tiny


class Ensemble(Protocol):
    """Distributions of all teachers after one prefix."""

    @property
    def teachers(self) -> int:
        """Number of teachers, n."""

    @property
    def vocab(self) -> int:
        """Size of their vocabulary."""

    def coordinated_votes(self, exponentials: Floats) -> Histogram:
        """Return the histogram of votes that share ``exponentials`` ``(vocab,)``, drawn from Exp(1)."""

    def independent_votes(self, draws: np.random.Generator) -> Histogram:
        """Return the histogram of votes that teachers draw independently."""

    def mean(self) -> Floats:
        """Return the mean of the distributions, ``(vocab,)``."""


@dataclass(frozen=True)
class DenseEnsemble:
    """Distributions as a matrix ``(teachers, vocab)`` whose rows sum to 1."""

    p: Floats

    @classmethod
    def of(cls, distributions: Sequence[Floats], temperature: float = 1.0) -> DenseEnsemble:
        """Return the ensemble of one distribution a teacher, each sharpened by ``temperature``.

        Raises:
            InputError: If vocabularies differ, a row is no distribution, or the temperature is not positive.
        """
        check_temperature(temperature)
        sizes = sorted({len(each) for each in distributions})
        if len(sizes) != 1:
            raise InputError(
                "teachers: vocabularies of one size are needed to count votes, found "
                f"{' and '.join(map(str, sizes)) or 'no teachers'}"
            )
        p = np.asarray(distributions, np.float64)
        if not (np.isfinite(p).all() and (p >= 0).all() and np.allclose(p.sum(1), 1, rtol=0, atol=1e-6)):
            raise InputError(
                "teachers: a distribution has a negative or infinite entry, or does not sum to 1"
            )
        sharpened = p ** (1 / temperature)
        return cls(sharpened / sharpened.sum(1, keepdims=True))

    @property
    def teachers(self) -> int:
        """Number of teachers."""
        return len(self.p)

    @property
    def vocab(self) -> int:
        """Size of their vocabulary."""
        return self.p.shape[1]

    def coordinated_tokens(self, exponentials: Floats) -> NDArray[np.int64]:
        """Return the vote of each teacher, ``(teachers,)``."""
        return np.argmax(self.p / np.maximum(exponentials, TINY), 1)

    def coordinated_votes(self, exponentials: Floats) -> Histogram:
        """Return the histogram of votes that share ``exponentials``."""
        return np.bincount(self.coordinated_tokens(exponentials), minlength=self.vocab)

    def independent_votes(self, draws: np.random.Generator) -> Histogram:
        """Return the histogram of independent votes."""
        votes = np.argmax(self.p / np.maximum(draws.standard_exponential(self.p.shape), TINY), 1)
        return np.bincount(votes, minlength=self.vocab)

    def mean(self) -> Floats:
        """Return the mean of the distributions."""
        return self.p.mean(0)


@dataclass(frozen=True)
class SparseEnsemble:
    """Distributions that are alike but for few tokens: p_i is proportional to base + extra_i.

    Votes are exact and cost O(vocab + entries), whatever the number of teachers.
    """

    teachers: int
    base: Floats
    """Common part, ``(vocab,)``, not normalized."""
    starts: NDArray[np.int64]
    """First entry of each teacher that has any."""
    tokens: NDArray[np.int64]
    """Token of each entry; those of a teacher follow each other and differ."""
    extra: Floats
    """Positive weight of each entry, on top of the common part."""

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        return len(self.base)

    def coordinated_votes(self, exponentials: Floats) -> Histogram:
        """Return the histogram of votes that share ``exponentials``."""
        u = np.maximum(exponentials, TINY)
        scores = self.base / u
        common = int(np.argmax(scores))
        votes = np.zeros(self.vocab, np.int64)
        if len(self.starts):
            entries = scores[self.tokens] + self.extra / u[self.tokens]
            best = np.maximum.reduceat(entries, self.starts)
            best[best <= scores[common]] = np.inf  # these vote for the common part's token
            votes += np.bincount(self.tokens[entries >= self._spread(best)], minlength=self.vocab)
        votes[common] += self.teachers - votes.sum()
        return votes

    def independent_votes(self, draws: np.random.Generator) -> Histogram:
        """Return the histogram of independent votes."""
        votes = np.zeros(self.vocab, np.int64)
        if len(self.starts):
            own = np.add.reduceat(self.extra, self.starts)
            voting = np.flatnonzero(draws.random(len(own)) * (self.base.sum() + own) < own)
            cumulative = np.cumsum(self.extra)
            ends = np.append(self.starts[1:], len(self.extra)) - 1
            at = cumulative[ends[voting]] - draws.random(len(voting)) * own[voting]
            chosen = np.clip(np.searchsorted(cumulative, at), self.starts[voting], ends[voting])
            votes += np.bincount(self.tokens[chosen], minlength=self.vocab)
        return votes + draws.multinomial(self.teachers - votes.sum(), self.base / self.base.sum())

    def mean(self) -> Floats:
        """Return the mean of the distributions."""
        total = self.base.sum()
        own = np.add.reduceat(self.extra, self.starts) if len(self.starts) else np.empty(0)
        common = (self.teachers - len(own)) / total + (1 / (total + own)).sum()
        entries = self.extra / self._spread(total + own)
        summed = common * self.base + np.bincount(self.tokens, entries, minlength=self.vocab)
        return summed / self.teachers

    def dense(self) -> DenseEnsemble:
        """Return the same distributions as a matrix; teachers without entries come last."""
        weights = np.tile(self.base, (self.teachers, 1))
        rows = self._spread(np.arange(len(self.starts)))
        weights[rows, self.tokens] += self.extra
        return DenseEnsemble(weights / weights.sum(1, keepdims=True))

    def _spread(self, of_teachers: NDArray[Number]) -> NDArray[Number]:
        """Return a value of each teacher with entries at every one of these."""
        return np.repeat(of_teachers, np.diff(np.append(self.starts, len(self.tokens))))


def check_temperature(temperature: float) -> None:
    """Raise InputError for a temperature that is not positive."""
    if not 0 < temperature < np.inf:
        raise InputError(
            f"temperature: {temperature:g} leaves no distribution to draw from; give a positive number, 1 "
            "for the teachers' own"
        )
