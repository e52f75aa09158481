"""Counterfactual teacher: one model's distributions in several universes, renamed back and averaged.

In universe i every mention of a person is that of substitute i; the model continues that text, and its
distributions are carried back to the places of the original text (Liu et al. 2024, "Revisiting Who's Harry
Potter", arXiv 2407.16997). Who's Harry Potter (Eldan and Russinovich 2023) is the case of one universe with
hard labels, :class:`Averaging`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.unlearning.alignment import Places, align, common_places
from sweeps.unlearning.encoding import Encoded, TextEncoding
from sweeps.unlearning.mixture import average
from sweeps.unlearning.names import Mention, PersonName, check_names, find_mentions, substitute
from sweeps.unlearning.renaming import (
    Floats,
    Ids,
    one_hot,
    penalize,
    rename_before_mentions,
    rename_elsewhere,
    speaks_of_substitute,
)

PROMPT = "Complete the following passage about {name}. "
"""Prompt that names the person whom a passage is about."""


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """A text in the universes of its substitutes, and where their distributions belong."""

    versions: tuple[tuple[int, ...], ...]
    """Tokens of each universe."""
    kept: Places
    """Places of the original whose next token a student learns to predict, ascending, ``(kept,)``."""
    partners: Places
    """Their places in each universe, ``(universes, kept)``."""
    present: Ids
    """Next token where a mention comes next and is renamed, else -1, ``(kept,)``."""
    mentioned: NDArray[np.bool_]
    """True after the first mention, or where a prompt names the person, ``(kept,)``."""
    persons: tuple[int, ...]
    """Persons that are mentioned."""


@dataclass(frozen=True, kw_only=True)
class Rewriter:
    """Rewriting of tokens into universes.

    Raises:
        InputError: If a substitute cannot be told apart from a target, there are fewer substitutes than
            universes, or the tokenizer lacks the pieces of a name.
    """

    encoding: TextEncoding
    targets: tuple[PersonName, ...]
    """Persons to forget."""
    substitutes: tuple[tuple[PersonName, ...], ...]
    """Substitutes of each target, one a universe."""
    rename_back: bool = True
    """Train on no token of a name, and rename what the model expects of names."""
    rename_first: bool = False
    """Rename before the first mention too, where nothing has named the person yet."""
    keep_after_name: bool = False
    """Keep the place of a name's last token, which predicts what follows the name."""
    prompt: str | None = None
    """Prompt before a whole document, with ``{name}``, such as :data:`PROMPT`."""

    def __post_init__(self) -> None:
        if len(self.substitutes) != len(self.targets):
            raise InputError(f"substitutes: {len(self.substitutes)} lists for {len(self.targets)} persons")
        check_names(self.targets, tuple(dict.fromkeys(name for pool in self.substitutes for name in pool)))
        if len({len(pool) for pool in self.substitutes}) != 1:
            raise InputError("substitutes: every person needs as many as the others")
        for name in (*self.targets, *(name for pool in self.substitutes for name in pool)):
            self.encoding.check_name(name)

    @property
    def universes(self) -> int:
        """Number of substitutes of each target, N."""
        return len(self.substitutes[0])

    def prompted(self, ids: Sequence[int], person: int) -> list[int]:
        """Return a document after the prompt with the person's own name, as the student reads it."""
        assert self.prompt is not None
        text = self.prompt.format(name=self.targets[person].full) + self.encoding.decode(ids)
        return list(self.encoding.encode(text).ids)

    def rewrite(self, ids: Sequence[int], limit: int | None = None) -> Counterfactual | None:
        """Return the universes of a text, or None if it mentions nobody.

        Args:
            ids: Tokens of one document or a part of it, which may begin with the end-of-text token.
            limit: Tokens that a model can read at once; longer universes are cut.
        """
        head = [ids[0]] if len(ids) and ids[0] == self.encoding.end_of_text else []
        body = list(ids[len(head) :])
        text = self.encoding.decode(body)
        mentions = find_mentions(text, self.targets)
        if not mentions:
            return None
        own = self._spans_of(body, text)
        versions, alignments = [], []
        for universe in range(self.universes):
            names = [pool[universe] for pool in self.substitutes]
            version = substitute(text, mentions, names)
            encoded = self.encoding.encode(version.text)
            tokens = [*head, *encoded.ids][:limit]
            pairs = align([*head, *body], tokens)
            if self.keep_after_name:
                pairs = self._with_ends(pairs, own, encoded, mentions, version.spans, len(head))
            versions.append(tuple(tokens))
            alignments.append(pairs[pairs[:, 1] < len(tokens)])
        kept, partners = common_places(alignments)
        return self._placed(ids, own, mentions, versions, kept, partners, len(head), text)

    def _spans_of(self, body: list[int], text: str) -> Encoded:
        """Return the characters of the tokens of ``body``; of those that a cut word spoils, none."""
        encoded = self.encoding.encode(text)
        if list(encoded.ids) == body:
            return encoded
        spans = [(0, 0)] * len(body)
        for place, found in align(body, encoded.ids, least=1):
            spans[place] = encoded.spans[found]
        return Encoded(tuple(body), tuple(spans))

    def _with_ends(
        self,
        pairs: Places,
        own: Encoded,
        other: Encoded,
        mentions: Sequence[Mention],
        spans: Sequence[tuple[int, int]],
        shift: int,
    ) -> Places:
        """Return ``pairs`` with the last tokens of each name and its substitute's."""
        found = dict(pairs.tolist())
        for mention, span in zip(mentions, spans, strict=True):
            here, there = own.tokens_at((mention.start, mention.end)), other.tokens_at(span)
            if here and there:
                found[here[-1] + shift] = there[-1] + shift
        return np.array(sorted(found.items()), np.int64).reshape(-1, 2)

    def _placed(
        self,
        ids: Sequence[int],
        own: Encoded,
        mentions: Sequence[Mention],
        versions: list[tuple[int, ...]],
        kept: Places,
        partners: Places,
        shift: int,
        text: str,
    ) -> Counterfactual:
        """Return the universes with the places that are kept, and those that are renamed."""
        inside, before, first = set[int](), dict[int, int](), len(ids)
        for number, mention in enumerate(mentions):
            tokens = [place + shift for place in own.tokens_at((mention.start, mention.end))]
            if not tokens:
                continue
            inside |= set(tokens[:-1] if self.keep_after_name else tokens)
            first = min(first, tokens[0])
            if number or self.rename_first or self.prompt:
                before[tokens[0] - 1] = ids[tokens[0]]
        dropped = inside if self.rename_back else set()
        chosen = np.array(
            [n for n, a in enumerate(kept) if a not in dropped and a >= self._past(own, text, shift)],
            np.int64,
        )
        kept = kept[chosen]
        return Counterfactual(
            versions=tuple(versions),
            kept=kept,
            partners=partners[:, chosen],
            present=np.array([before.get(int(a), -1) for a in kept], np.int64),
            mentioned=np.array([a >= first or bool(self.prompt) for a in kept], bool),
            persons=tuple(sorted({each.person for each in mentions})),
        )

    def _past(self, own: Encoded, text: str, shift: int) -> int:
        """Return the first place past the prompt: that of its last token, which predicts the passage."""
        if self.prompt is None:
            return 0
        for target in self.targets:
            prompt = self.prompt.format(name=target.full)
            if text.startswith(prompt):
                return max(0, own.tokens_at((0, len(prompt)))[-1]) + shift
        return 0


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """Mean of distributions in universes, with the names of the original."""

    rewriter: Rewriter
    hard: bool = False
    """Hard labels: all mass of each universe on its likeliest token."""
    name_penalty: float = 0.0
    """Logits subtracted from the substitutes' names once one was mentioned; WHP has 5."""
    _names: dict[tuple[int, int], tuple[Ids, Ids]] = field(default_factory=dict, repr=False, compare=False)

    def teacher(self, found: Counterfactual, p: Floats) -> Floats:
        """Return p-bar at the kept places, ``(kept, vocab)``; rows sum to 1.

        Args:
            found: The rewritten text.
            p: The model's distributions at :attr:`Counterfactual.partners`, ``(universes, kept, vocab)``.
        """
        if self.rewriter.rename_back and len(found.kept):
            p = self._renamed(found, p)
        if self.name_penalty or self.hard:
            p = np.stack([self._hardened(found, each, universe) for universe, each in enumerate(p)])
        return average(p)

    def _renamed(self, found: Counterfactual, p: Floats) -> Floats:
        names = [self._tokens(found, universe) for universe in range(len(p))]
        before = np.flatnonzero(found.present >= 0)
        elsewhere = speaks_of_substitute(p, [each for each, _ in names]) & (found.present < 0)
        rows = np.flatnonzero(elsewhere & found.mentioned)
        renamed = p.copy()
        for each, (theirs, originals) in zip(renamed, names, strict=True):
            each[before] = rename_before_mentions(each[before], np.unique(theirs), found.present[before])
            each[rows] = rename_elsewhere(each[rows], theirs, originals)
        return renamed

    def _hardened(self, found: Counterfactual, p: Floats, universe: int) -> Floats:
        named = p.copy()
        rows = np.flatnonzero(found.mentioned)
        if self.name_penalty:
            theirs, _ = self._tokens(found, universe)
            named[rows] = penalize(named[rows], np.unique(theirs), self.name_penalty)
        return one_hot(named) if self.hard else named

    def _tokens(self, found: Counterfactual, universe: int) -> tuple[Ids, Ids]:
        """Return tokens of the substitutes' names without repetition, and those of the originals instead."""
        each = [self._tokens_of(person, universe) for person in found.persons]
        theirs, originals = (np.concatenate(side) for side in zip(*each, strict=True))
        unique, first = np.unique(theirs, return_index=True)
        return unique, originals[first]

    def _tokens_of(self, person: int, universe: int) -> tuple[Ids, Ids]:
        rewriter = self.rewriter
        if (person, universe) not in self._names:
            target, name = rewriter.targets[person], rewriter.substitutes[person][universe]
            forms = max(len(target.forms), len(name.forms))
            self._names[person, universe] = (
                rewriter.encoding.name_tokens(name, forms),
                rewriter.encoding.name_tokens(target, forms),
            )
        return self._names[person, universe]


def choose_substitutes(
    targets: Sequence[PersonName], pool: Sequence[PersonName], universes: int, seed: int = 0
) -> tuple[tuple[PersonName, ...], ...]:
    """Return the substitutes of each target: the first of the shared ``pool``, shuffled for each.

    Raises:
        InputError: If there are fewer than ``universes``.
    """
    if not 1 <= universes <= len(pool):
        raise InputError(
            f"universes: {universes}, but there are {len(pool)} substitutes; ask for 1 to that many"
        )
    orders = [np.random.default_rng((seed, number)).permutation(len(pool)) for number in range(len(targets))]
    return tuple(tuple(pool[place] for place in order[:universes]) for order in orders)
