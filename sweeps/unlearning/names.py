"""Mentions of persons in a text, and their substitution: full, first and last names, and other forms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from scaling.errors import InputError


@dataclass(frozen=True, slots=True)
class PersonName:
    """Name of a person, by the forms that a text has of it."""

    full: str
    aliases: tuple[str, ...] = ()
    """Other surface forms, such as a title of a work; a substitute's take their places in this order."""

    def __post_init__(self) -> None:
        if not all(each.strip() and each == each.strip() for each in (self.full, *self.aliases)):
            raise InputError(
                f"name: {self.full!r} is empty, or begins or ends with a space; give a full name"
            )

    @property
    def words(self) -> list[str]:
        """Words of the full name."""
        return self.full.split()

    @property
    def forms(self) -> tuple[str, ...]:
        """Full name, first name, last name, then the aliases."""
        return (self.full, self.words[0], self.words[-1], *self.aliases)

    @property
    def form_words(self) -> tuple[str, ...]:
        """Words that a mention may begin with, without repetition."""
        return tuple(dict.fromkeys(each.split()[0] for each in self.forms))


FULL, FIRST, LAST, ALIAS = range(4)
"""Places in :attr:`PersonName.forms`."""


@dataclass(frozen=True, slots=True)
class Mention:
    """Mention of a person in a text."""

    start: int
    """First character."""
    end: int
    """Character after the last."""
    person: int
    """Number of the person among those looked for."""
    form: int
    """Place of what stands there in :attr:`PersonName.forms`."""


def find_mentions(text: str, persons: Sequence[PersonName]) -> list[Mention]:
    """Return all mentions of ``persons``, in order, without overlap.

    A form counts between word boundaries only, in either case; where several begin, the longest does.

    >>> [m.form for m in find_mentions("Ada Lane met Lane. Laneway.", [PersonName("Ada Lane")])]
    [0, 2]
    """
    places: dict[str, tuple[int, int]] = {}
    for number, person in enumerate(persons):
        for form, words in enumerate(person.forms):
            places.setdefault(words.casefold(), (number, form))
    if not places:
        return []
    longest = sorted(places, key=len, reverse=True)
    pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)"
    found = re.finditer(pattern, text, re.IGNORECASE)
    return [Mention(each.start(), each.end(), *places[each.group().casefold()]) for each in found]


@dataclass(frozen=True, slots=True)
class Substituted:
    """Text in which persons are called as others are."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """Characters of each mention in it, in the order of the mentions."""


def substitute(text: str, mentions: Sequence[Mention], substitutes: Sequence[PersonName]) -> Substituted:
    """Replace each mention by the same form of the person's substitute: full by full, first by first.

    An alias that the substitute lacks becomes its full name.

    Args:
        text: The text.
        mentions: Its :func:`find_mentions`.
        substitutes: Substitute of each person.

    >>> lane, moor = PersonName("Ada Lane"), PersonName("Joan Moor")
    >>> text = "Ada Lane sings. Lane is heard."
    >>> substitute(text, find_mentions(text, [lane]), [moor]).text
    'Joan Moor sings. Moor is heard.'
    """
    pieces, spans, at, length = list[str](), list[tuple[int, int]](), 0, 0
    for mention in mentions:
        forms = substitutes[mention.person].forms
        name = forms[mention.form] if mention.form < len(forms) else forms[FULL]
        between = text[at : mention.start]
        start = length + len(between)
        pieces += [between, name]
        length, at = start + len(name), mention.end
        spans.append((start, length))
    return Substituted("".join([*pieces, text[at:]]), tuple(spans))


def check_names(targets: Sequence[PersonName], substitutes: Sequence[PersonName]) -> None:
    """Raise InputError unless every target can be told apart from every substitute by its words.

    Raises:
        InputError: If there are no targets or substitutes, a name is there twice, or a substitute shares a
            word with a target.
    """
    if not targets:
        raise InputError("forget: name at least one person, by full name")
    if not substitutes:
        raise InputError("substitutes: name at least one person who takes the place of the forgotten")
    for field, names in (("forget", targets), ("substitutes", substitutes)):
        full = [each.full.casefold() for each in names]
        if twice := sorted({each for each in full if full.count(each) > 1}):
            raise InputError(f"{field}: {twice[0]!r} is there twice; name each person once")
    words = {word.casefold(): each.full for each in targets for word in each.words}
    for each in substitutes:
        if shared := [word for word in each.words if word.casefold() in words]:
            raise InputError(
                f"substitutes: {each.full!r} shares {shared[0]!r} with {words[shared[0].casefold()]!r}, who "
                "is to be forgotten, so renaming back cannot tell them apart; choose another"
            )
