"""Choice of threshold and noise on public text: the release is simulated there, for all candidates at once.

Chosen on private text they would leak; a simulation on public text costs no budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling.private.accounting import PrivacyBudget
from sweeps.pate.ensemble import Ensemble, Floats
from sweeps.pate.generator import Votes, cast_votes, token_at
from sweeps.pate.randomness import OneTimeRandomness
from sweeps.pate.release import ReleaseRule

THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
"""Candidates, as shares of the teachers."""
SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Candidates for the noise, likewise."""
SMOOTHING = 16.0
"""Weight of its unigrams in a bigram student, in tokens."""


@dataclass(frozen=True)
class PublicPosition:
    """A place in public text."""

    ensemble: Ensemble
    """Teachers there, made of public text."""
    before: int
    """Token before it."""
    token: int
    """The text's own token."""
    public: Floats
    """Distribution of the public model."""


def with_likely_tokens(positions: Iterable[PublicPosition], found: list[float]) -> Iterator[PublicPosition]:
    """Yield ``positions``; append the number of about equally likely tokens of each, 1 / max_j mean p_j."""
    for place in positions:
        found.append(1 / float(place.ensemble.mean().max()))
        yield place


def choose_release(
    positions: Iterable[PublicPosition],
    rules: Sequence[ReleaseRule],
    *,
    votes: Votes,
    budget: PrivacyBudget,
    queries: float,
    fill: bool,
    text_tokens: float = 0,
    randomness: OneTimeRandomness,
) -> int:
    """Return the number of the rule whose text teaches a bigram student best.

    The student is a smoothed bigram model of as many tokens as the budget would give at the yield found,
    those that the public model fills in or adds included; its cross-entropy on the public text is compared.
    Of equal ones the first is taken. No more tokens are simulated than there are positions: of longer texts a
    part is, with the same share of public tokens.

    Args:
        positions: Places in public text.
        rules: Candidates.
        votes: Kind of votes.
        budget: PrivacyBudget of the release.
        queries: Queries of the release at most.
        fill: True if the public model fills in what is refused.
        text_tokens: Tokens that the public model brings the text to, at least.
        randomness: Random numbers of this choice.
    """
    texts: list[list[tuple[int, int] | None]] = [[] for _ in rules]
    yields, pairs, added, vocab = np.zeros(len(rules)), [], [], 0
    for number, place in enumerate(positions):
        vocab = place.ensemble.vocab
        pairs.append((place.before, place.token))
        draws, noise = randomness.open(number)
        histogram = cast_votes(place.ensemble, votes, draws)
        public = token_at(place.public, randomness.fill(0, number).random())
        filled = public if fill else None
        added.append((place.before, public))
        for at, rule in enumerate(rules):
            released = rule.release(histogram, noise)
            yields[at] += released is not None
            token = filled if released is None else released
            texts[at].append(None if token is None else (place.before, token))
    asked, losses = len(pairs), []
    order = randomness.fill(1, 0).permutation(asked)
    for rule, text, share in zip(rules, texts, yields / asked, strict=True):
        attempts, rest = _parts(asked, _attempts(rule, share, budget, queries), text_tokens)
        read = [text[at] for at in order[:attempts] if text[at] is not None]
        read += [added[at] for at in order[attempts : attempts + rest]]
        losses.append(_bigram_loss(np.array(read, np.int64).reshape(-1, 2), np.array(pairs), vocab))
    return int(np.argmin(losses))


def _attempts(rule: ReleaseRule, share: float, budget: PrivacyBudget, queries: float) -> float:
    """Return how many attempts the budget affords if so large a ``share`` is answered."""
    each = rule.cost.test + (rule.cost.answer * share if share else 0.0)
    return min(budget.rho / each if each else queries, queries)


def _parts(positions: int, attempts: float, text_tokens: float) -> tuple[int, int]:
    """Return how many positions stand for attempts, and for tokens that the public model adds to them.

    >>> _parts(100, 30, 0), _parts(100, 30, 50), _parts(100, 30, 300), _parts(100, 400, 300)
    ((30, 0), (30, 20), (10, 90), (100, 0))
    """
    attempts = min(attempts, max(positions, text_tokens))
    whole = max(attempts, text_tokens)
    scale = min(1.0, positions / whole) if whole else 0.0
    own = min(positions, round(attempts * scale))
    return own, min(positions, round(whole * scale)) - own


def _bigram_loss(text: NDArray[np.int64], pairs: NDArray[np.int64], vocab: int) -> float:
    """Return the cross-entropy of a bigram student of ``text`` on ``pairs``, nats/token."""
    totals = 1.0 + np.bincount(text[:, 1], minlength=vocab)
    unigram = totals[pairs[:, 1]] / totals.sum()
    after = np.bincount(text[:, 0], minlength=vocab)
    own = _pair_counts(text, pairs, vocab)
    return float(-np.log((own + SMOOTHING * unigram) / (after[pairs[:, 0]] + SMOOTHING)).mean())


def _pair_counts(text: NDArray[np.int64], pairs: NDArray[np.int64], vocab: int) -> NDArray[np.int64]:
    """Return how often each of ``pairs`` stands in ``text``."""
    codes, counts = np.unique(text[:, 0] * vocab + text[:, 1], return_counts=True)
    asked = pairs[:, 0] * vocab + pairs[:, 1]
    if not len(codes):
        return np.zeros(len(asked), np.int64)
    at = np.minimum(np.searchsorted(codes, asked), len(codes) - 1)
    return np.where(codes[at] == asked, counts[at], 0)
