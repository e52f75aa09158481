"""Private text: sequences of released tokens, group by group, with the ledger after each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sweeps.pate.ensemble import Ensemble, Floats, Histogram
from sweeps.pate.ledger import BudgetSpent, Ledger
from sweeps.pate.randomness import OneTimeRandomness
from sweeps.pate.release import ReleaseRule

Votes = Literal["hot", "cold"]
MAX_AT_ONCE = 64
"""Largest number of sequences that are written side by side."""


class TeachersAlong(Protocol):
    """Teachers that read along while some sequences are written."""

    def read(self, tokens: NDArray[np.int64]) -> tuple[Callable[[int], Ensemble], Floats]:
        """Read one more token of each sequence, ``(sequences,)``.

        Returns:
            The teachers' distributions over the next token by number of the sequence, and the public
            model's, ``(sequences, vocab)``.
        """


@dataclass
class Group:
    """Sequences that were written side by side, and the ledger's counts after them."""

    sequences: list[list[int]]
    """Tokens of each sequence, after the start token."""
    released: list[list[bool]]
    """True for each token that the teachers released; the others are the public model's."""
    attempts: int = 0
    answers: int = 0


@dataclass(kw_only=True)
class PrivateGenerator:
    """Writer of sequences until the budget is spent.

    Each token is asked for up to ``tries`` times, with fresh random numbers. Where all are refused, the
    public model draws the token, which costs nothing, or the sequence ends.
    """

    open: Callable[[int], TeachersAlong]
    """Opens the teachers for a number of sequences."""
    rule: ReleaseRule
    ledger: Ledger
    randomness: OneTimeRandomness
    votes: Votes
    start: int
    """Public token that every sequence begins with, and that is not released."""
    length: int
    """Tokens of a sequence, at most."""
    tries: int = 1
    fill: bool = True
    """True if refused tokens are the public model's; else a refusal ends the sequence."""
    most_at_once: int = MAX_AT_ONCE
    """Sequences of a group, at most."""
    at_once: int = field(init=False)
    """Sequences of a group: as many of those as the budget can finish."""

    def __post_init__(self) -> None:
        queries = min(self.ledger.budget.queries(self.ledger.cost), self.ledger.max_attempts)
        self.at_once = int(min(self.most_at_once, max(1, queries // (self.length * self.tries))))

    def groups(self, first: int = 0) -> Iterator[Group]:
        """Yield groups, from number ``first`` on, until the ledger affords no further attempt.

        To continue, the ledger and the randomness must be those after the groups before.
        """
        number = first
        while self.ledger.affords_another:
            yield self._group(number)
            number += 1

    def _group(self, number: int) -> Group:
        along = self.open(self.at_once)
        group = Group([[] for _ in range(self.at_once)], [[] for _ in range(self.at_once)])
        tokens = np.full(self.at_once, self.start)
        writing = list(range(self.at_once))
        for position in range(self.length):
            ensembles, public = along.read(tokens)
            draws = self.randomness.fill(number, position).random(self.at_once)
            for sequence in list(writing):
                if not self.ledger.affords_another:
                    return self._closed(group)
                token = self._released(ensembles(sequence))
                group.released[sequence].append(token is not None)
                if token is None and self.fill:
                    token = token_at(public[sequence], draws[sequence])
                if token is None:
                    group.released[sequence].pop()
                    writing.remove(sequence)
                    continue
                group.sequences[sequence].append(token)
                tokens[sequence] = token
            if not writing:
                break
        return self._closed(group)

    def _released(self, ensemble: Ensemble) -> int | None:
        """Return a token that the teachers release within the tries, if they do."""
        for _ in range(self.tries):
            try:
                number = self.ledger.charge()
            except BudgetSpent:
                return None
            draws, noise = self.randomness.open(number)
            votes = cast_votes(ensemble, self.votes, draws)
            if (token := self.rule.release(votes, noise)) is not None:
                return token
            self.ledger.refuse()
        return None

    def _closed(self, group: Group) -> Group:
        group.attempts, group.answers = self.ledger.attempts, self.ledger.answers
        return group


def cast_votes(ensemble: Ensemble, votes: Votes, draws: np.random.Generator) -> Histogram:
    """Return the histogram of hot or cold votes."""
    if votes == "hot":
        return ensemble.coordinated_votes(draws.standard_exponential(ensemble.vocab))
    return ensemble.independent_votes(draws)


def mean_text(
    open_teachers: Callable[[int], TeachersAlong],
    randomness: OneTimeRandomness,
    *,
    start: int,
    length: int,
    sizes: Iterable[int],
    first: int = 0,
    public: bool = False,
) -> Iterator[Group]:
    """Yield sequences drawn from the mean of the teachers, or from the public model: nothing is private.

    Args:
        open_teachers: Opens the teachers for a number of sequences.
        randomness: Random numbers, one stream for each group and position.
        start: Token that every sequence begins with.
        length: Tokens of each sequence.
        sizes: Sequences of each group.
        first: Number of the first group; those before are written.
        public: Leave the teachers out.
    """
    for number, count in enumerate(sizes, first):
        along, tokens, written = open_teachers(count), np.full(count, start), []
        for position in range(length):
            ensembles, alone = along.read(tokens)
            draws = randomness.fill(number, position).random(count)
            p = alone if public else np.stack([ensembles(each).mean() for each in range(count)])
            tokens = np.array([token_at(row, u) for row, u in zip(p, draws, strict=True)])
            written.append(tokens)
        yield Group(np.stack(written, 1).tolist(), [[False] * length for _ in range(count)])


def group_sizes(sequences: int) -> list[int]:
    """Return the sizes of groups that together have so many sequences."""
    whole, rest = divmod(sequences, MAX_AT_ONCE)
    return [MAX_AT_ONCE] * whole + [rest] * (rest > 0)


def token_at(p: Floats, u: float) -> int:
    """Return the token at ``u`` in [0, 1) of the cumulative distribution."""
    cumulative = np.cumsum(p)
    return int(min(np.searchsorted(cumulative, u * cumulative[-1], side="right"), len(p) - 1))
