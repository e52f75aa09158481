"""Teachers of counts: n-grams of n shards of a private text, each smoothed by a public model.

p_i(j | prefix) is (c_i(context, j) + prior p(j | prefix)) / (c_i(context) + prior), with the counts c_i of
shard i after the last ``order`` - 1 tokens and the public model's p: Dirichlet smoothing, as in MacKay and
Peto 1995. A teacher that never saw the context says what the public model says.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.pate.ensemble import Floats, SparseEnsemble, check_temperature


@dataclass(frozen=True)
class ShardCounts:
    """Counts of n-grams in each shard, sorted by context, then shard."""

    teachers: int
    vocab: int
    order: int
    shard_tokens: int
    """Tokens of a shard: the unit of privacy."""
    contexts: NDArray[np.int64]
    """Codes of the contexts that occur, ascending."""
    entry_ends: NDArray[np.int64]
    """Entries up to and including those of each context; one more at the front, 0."""
    segment_ends: NDArray[np.int64]
    """Segments likewise; one has the entries of one context and shard."""
    segments: NDArray[np.int64]
    """First entry of each segment."""
    tokens: NDArray[np.int64]
    """Token that follows, of each entry."""
    counts: Floats
    """Count of each entry."""

    @classmethod
    def of(cls, text: NDArray[np.integer], *, teachers: int, vocab: int, order: int = 2) -> ShardCounts:
        """Cut ``text`` into ``teachers`` contiguous shards of equal length and count each.

        Raises:
            InputError: If there is one shard or none, a shard has no n-gram, a token lies outside the
                vocabulary, or n-grams of that order are too many to number.
        """
        length = shard_length(len(text), teachers, order, f"{order}-grams")
        shards = np.asarray(text[: teachers * length], np.int64).reshape(teachers, length)
        if (largest := int(shards.max())) >= vocab:
            raise InputError(
                f"teachers: token {largest} of the private text is outside the public model's vocabulary of "
                f"{vocab}; both must use one tokenizer"
            )
        if float(vocab) ** order * teachers >= 2**63:
            raise InputError(f"order: {order}-grams over {vocab:,} tokens are too many to count; use order 2")
        context = np.zeros((teachers, length - order + 1), np.int64)
        for place in range(order - 1):
            context = context * vocab + shards[:, place : place + length - order + 1]
        codes = (context * teachers + np.arange(teachers)[:, None]) * vocab + shards[:, order - 1 :]
        return cls._sorted(codes.ravel(), teachers, vocab, order, length)

    @classmethod
    def _sorted(
        cls, codes: NDArray[np.int64], teachers: int, vocab: int, order: int, length: int
    ) -> ShardCounts:
        found, counts = np.unique(codes, return_counts=True)
        places, tokens = np.divmod(found, vocab)
        segments = np.flatnonzero(np.diff(places, prepend=-1))
        of_segments = places[segments] // teachers
        contexts, first = np.unique(of_segments, return_index=True)
        segment_ends = np.append(first, len(segments))
        return cls(
            teachers=teachers,
            vocab=vocab,
            order=order,
            shard_tokens=length,
            contexts=contexts,
            entry_ends=np.append(segments[first], len(found)),
            segment_ends=segment_ends,
            segments=segments,
            tokens=tokens,
            counts=counts.astype(np.float64),
        )

    def at(
        self,
        prefix: Sequence[int] | NDArray[np.integer],
        public: Floats,
        prior: float,
        temperature: float = 1.0,
    ) -> SparseEnsemble:
        """Return the teachers' distributions after ``prefix``.

        Args:
            prefix: Tokens so far; shorter than a context, all teachers are the public model.
            public: Distribution of the public model there, ``(vocab,)``.
            prior: Weight of the public model, in tokens.
            temperature: Temperature of every teacher.
        """
        check_temperature(temperature)
        power, weights = 1 / temperature, prior * public
        base = weights if power == 1 else weights**power
        entries, starts = self._found(prefix)
        tokens, counts = self.tokens[entries], self.counts[entries]
        extra = counts if power == 1 else (weights[tokens] + counts) ** power - base[tokens]
        return SparseEnsemble(self.teachers, base, starts, tokens, extra)

    def _found(self, prefix: Sequence[int] | NDArray[np.integer]) -> tuple[slice, NDArray[np.int64]]:
        """Return the entries of the context that ends ``prefix``, and the first of each teacher."""
        width = self.order - 1
        code = 0
        for token in prefix[len(prefix) - width :]:
            code = code * self.vocab + int(token)
        at = int(np.searchsorted(self.contexts, code))
        if len(prefix) < width or at == len(self.contexts) or self.contexts[at] != code:
            return slice(0, 0), np.empty(0, np.int64)
        entries = slice(int(self.entry_ends[at]), int(self.entry_ends[at + 1]))
        segments = self.segments[self.segment_ends[at] : self.segment_ends[at + 1]]
        return entries, segments - entries.start

    def mean_parts(self, prior: float) -> tuple[Floats, Floats]:
        """Return the mean teacher, apart from the public model: weight of that after each of
        :attr:`contexts`, and what each entry adds to its token. At temperature 1.
        """
        totals = np.add.reduceat(self.counts, self.segments)
        lengths = np.diff(np.append(self.segments, len(self.counts)))
        shares = 1 / (totals + prior)
        summed = np.add.reduceat(shares, self.segment_ends[:-1])
        seen = np.diff(self.segment_ends)
        weight = (prior * summed + (self.teachers - seen)) / self.teachers
        return weight, self.counts * np.repeat(shares, lengths) / self.teachers


def shard_length(tokens: float, teachers: int, needed: int, what: str) -> int:
    """Return the tokens of each of ``teachers`` shards of a text of ``tokens``.

    Raises:
        InputError: If there is one shard or none, or each has fewer than the ``needed`` tokens of ``what``.
    """
    check_teachers(teachers)
    if (each := tokens // teachers) < needed:
        raise InputError(
            f"teachers: {teachers:,} shards of {tokens:,.0f} tokens have {each:g} each, and {what} need "
            f"{needed}; ask for {tokens // needed:,.0f} or fewer, or more text"
        )
    return int(each) if math.isfinite(each) else sys.maxsize


def check_teachers(teachers: int) -> None:
    """Raise InputError for fewer than two teachers."""
    if teachers < 2:
        raise InputError(
            f"teachers: {teachers} shard makes no ensemble, and its one vote is the answer; ask for two or "
            "more, and for privacy at a small epsilon thousands"
        )
