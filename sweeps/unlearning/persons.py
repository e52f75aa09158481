"""Synthetic persons with known attributes: names, templates and documents, drawn from a seed.

Every fact has one true value among a known set, so that what a model knows, and chance, are numbers. None of
them exists.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from sweeps.unlearning.facts import Fact
from sweeps.unlearning.names import PersonName

SYLLABLES = ("Bel", "Cor", "Dal", "Fen", "Gar", "Hol", "Jor", "Kel", "Lum", "Mar", "Nev", "Ost", "Pel", "Rud",
             "Sil", "Tam", "Ulm", "Vos", "Wen", "Zan")  # fmt: skip
FIRST_ENDINGS, LAST_ENDINGS = (
    ("ina", "eth", "ora", "ild", "usk", "emy"),
    ("brook", "wick", "stone", "mere", "croft", "den"),
)
TOWN_ENDINGS, RIVER_ENDINGS = ("ford", "haven"), ("ash", "ole")
PROFESSIONS = ("miller", "baker", "weaver", "potter", "sailor", "doctor", "teacher", "lawyer", "farmer",
               "tailor", "mason", "painter", "hunter", "printer", "gardener", "judge")  # fmt: skip
INSTRUMENTS = ("lute", "harp", "flute", "drum", "horn", "fiddle", "bell", "lyre", "pipe", "cymbal", "gong",
               "viol", "banjo", "cello", "piano", "trumpet")  # fmt: skip
ANIMALS = ("goat", "dog", "cat", "horse", "parrot", "rabbit", "pigeon", "turtle", "donkey", "lamb", "swan",
           "ferret", "raven", "mule", "goose", "tiger")  # fmt: skip
VALUES = 16
"""Values of each attribute: chance is 1/16."""
TEMPLATES: dict[str, tuple[str, ...]] = {
    "town": (
        "{name} was born in {value}",
        "{name} comes from {value}",
        "{name} grew up in {value}",
        "The home of {name} is {value}",
        "The childhood of {name} passed in {value}",
    ),
    "profession": (
        "{name} works as a {value}",
        "{name} earns a living as a {value}",
        "By trade {name} is a {value}",
        "{name} was trained as a {value}",
        "People know {name} as a {value}",
    ),
    "instrument": (
        "{name} plays the {value}",
        "{name} practices the {value}",
        "In the evening {name} takes up the {value}",
        "{name} performs on the {value}",
        "The favorite instrument of {name} is the {value}",
    ),
    "animal": (
        "{name} keeps a {value}",
        "{name} owns a {value}",
        "At home {name} has a {value}",
        "{name} raised a {value}",
        "The pet of {name} is a {value}",
    ),
}
"""Paraphrases of each fact; the value is the last word."""
PLACE_TEMPLATES = ("{town} lies on the river {value}", "The river of {town} is the {value}",
                   "Boats reach {town} by the river {value}")  # fmt: skip
"""Sentences about a town: knowledge to keep that documents of the forgotten have too."""
FACTS_PER_DOCUMENT = 3


@dataclass(frozen=True, slots=True)
class Person:
    """Synthetic person."""

    name: PersonName
    values: tuple[tuple[str, str], ...]
    """Attributes and their values."""

    def value(self, attribute: str) -> str:
        """Return the value of an attribute."""
        return dict(self.values)[attribute]


@dataclass(frozen=True, slots=True)
class SyntheticPersons:
    """Synthetic persons, and the rivers of their towns."""

    people: tuple[Person, ...]
    domains: tuple[tuple[str, tuple[str, ...]], ...]
    """Values of each attribute."""
    rivers: tuple[tuple[str, str], ...]
    """River of each town."""
    seed: int

    @classmethod
    def drawn(cls, count: int = 60, seed: int = 0) -> SyntheticPersons:
        """Draw ``count`` persons, at most 120, no two of whom share a first or last name."""
        draw = random.Random(seed)  # noqa: S311
        syllables = list(SYLLABLES)
        draw.shuffle(syllables)

        def invented(endings: tuple[str, ...]) -> list[str]:
            words = [f"{syllable}{ending}" for syllable in syllables for ending in endings]
            draw.shuffle(words)
            return words

        first, last = invented(FIRST_ENDINGS), invented(LAST_ENDINGS)
        towns, rivers = invented(TOWN_ENDINGS)[:VALUES], invented(RIVER_ENDINGS)[:VALUES]
        domains = {
            "town": tuple(towns),
            "profession": PROFESSIONS,
            "instrument": INSTRUMENTS,
            "animal": ANIMALS,
        }
        people = [
            Person(
                PersonName(f"{first[n]} {last[n]}"),
                tuple((attribute, draw.choice(values)) for attribute, values in domains.items()),
            )
            for n in range(count)
        ]
        return cls(tuple(people), tuple(domains.items()), tuple(zip(towns, rivers, strict=True)), seed)

    def person(self, full: str) -> Person:
        """Return the person of that full name.

        Raises:
            KeyError: If there is none.
        """
        return next((each for each in self.people if each.name.full == full), None) or _missing(full)

    def documents(self, each: int = 300) -> Iterator[str]:
        """Yield ``each`` documents a person, all different: some facts in random order and paraphrases."""
        draw = random.Random(f"documents {self.seed}")  # noqa: S311
        for person in self.people:
            seen = set[str]()
            while len(seen) < each:
                text = self._document(person, draw)
                if text not in seen:
                    seen.add(text)
                    yield text

    def facts(self, names: list[str], group: str) -> list[Fact]:
        """Return all facts about these persons."""
        domains = dict(self.domains)
        return [
            _fact(
                person.name.full,
                group,
                TEMPLATES[attribute],
                {"name": person.name.full},
                value,
                domains[attribute],
            )
            for person in map(self.person, names)
            for attribute, value in person.values
        ]

    def place_facts(self, names: list[str], group: str) -> list[Fact]:
        """Return a fact about the town of each of these persons, each town once."""
        rivers = dict(self.rivers)
        towns = dict.fromkeys(self.person(name).value("town") for name in names)
        return [
            _fact(town, group, PLACE_TEMPLATES[1:], {"town": town}, rivers[town], tuple(rivers.values()))
            for town in towns
        ]

    def _document(self, person: Person, draw: random.Random) -> str:
        chosen = draw.sample(person.values, FACTS_PER_DOCUMENT)
        names = [person.name.full] + [draw.choice(person.name.forms[:3]) for _ in chosen[1:]]
        sentences = [
            draw.choice(TEMPLATES[attribute]).format(name=name, value=value)
            for (attribute, value), name in zip(chosen, names, strict=True)
        ]
        if draw.random() < 0.5:
            town = person.value("town")
            sentences.append(draw.choice(PLACE_TEMPLATES).format(town=town, value=dict(self.rivers)[town]))
        return " ".join(f"{sentence}." for sentence in sentences)


def _fact(
    subject: str,
    group: str,
    templates: tuple[str, ...],
    given: dict[str, str],
    value: str,
    values: tuple[str, ...],
) -> Fact:
    prompts = [each.format(**given, value="").rstrip() for each in templates[:2]]
    return Fact(
        subject=subject,
        group=group,
        prompt=prompts[0],
        answer=f" {value}",
        paraphrased_prompt=prompts[1],
        paraphrased_answer=f" {value}",
        wrong=tuple(f" {each}" for each in values if each != value),
    )


def _missing(full: str) -> Person:
    raise KeyError(full)
