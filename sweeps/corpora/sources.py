"""Where text comes from: a named corpus, files by path or glob, or a Hugging Face dataset."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scaling.errors import InputError
from sweeps.corpora.named import NAMED, Volume

Document = str

READABLE = (".txt", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Part:
    """Documents of one kind; each part of a corpus has its own held-out documents."""

    name: str
    licence: str
    documents: Callable[[], Iterator[Document]]


@dataclass(frozen=True, slots=True)
class Source:
    """Text in named parts, with a fingerprint that changes when the text does."""

    name: str
    fingerprint: str
    """A hash of the raw bytes, known without parsing them."""
    parts: tuple[Part, ...]

    def documents(self) -> Iterator[Document]:
        """The documents of all parts."""
        for part in self.parts:
            yield from part.documents()


def source_of(spec: str, text_field: str = "text") -> Source:
    """The source that ``spec`` names.

    Args:
        spec: a named corpus (``kjv``, ``permissive``); a path or glob of ``.txt``, ``.jsonl`` or
            ``.parquet`` files; or ``hf:OWNER/NAME``, optionally ``@SPLIT`` (default ``train``), which needs
            the ``datasets`` package and a network.
        text_field: the field (``.jsonl``) or column (``.parquet``, datasets) that holds the text.

    Raises:
        InputError: if nothing readable is there.
    """
    if spec in NAMED:
        return _named_source(spec)
    if spec.startswith("hf:"):
        return _hub_source(spec, text_field)
    return _file_source(spec, text_field)


def _named_source(name: str) -> Source:
    volumes = NAMED[name]
    fingerprint = hashlib.sha256("".join(volume.wheel.sha256 for volume in volumes).encode()).hexdigest()
    parts = [Part(v.name, v.licence, partial(_read_volume, v)) for v in volumes]
    return Source(name, fingerprint, tuple(parts))


def _read_volume(volume: Volume) -> Iterator[Document]:
    return volume.read(volume.wheel.fetch())


def _file_source(spec: str, text_field: str) -> Source:
    paths = sorted(Path(match) for match in glob.glob(str(Path(spec).expanduser()), recursive=True))  # noqa: PTH207
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise InputError(
            f"corpus.source: no file matches {spec!r}; give {' or '.join(NAMED)}, a path or glob of "
            f"{', '.join(READABLE)}, or hf:OWNER/NAME"
        )
    for path in paths:
        if path.suffix not in READABLE:
            raise InputError(f"corpus.source: {path} is not one of {', '.join(READABLE)}")
    digest = hashlib.sha256(text_field.encode())
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())

    def documents() -> Iterator[Document]:
        for path in paths:
            yield from _read(path, text_field)

    return Source(spec, digest.hexdigest(), (Part("files", "unknown", documents),))


def _read(path: Path, text_field: str) -> Iterator[Document]:
    if path.suffix == ".txt":
        yield from _paragraphs(path)
    elif path.suffix == ".jsonl":
        yield from _json_lines(path, text_field)
    else:
        yield from _parquet_column(path, text_field)


def _paragraphs(path: Path) -> Iterator[Document]:
    """A text file is one document if it has no blank lines, otherwise one document a paragraph."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"corpus.source: {path} is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    yield from text.split("\n\n")


def _json_lines(path: Path, text_field: str) -> Iterator[Document]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"corpus.source: {path}, line {number}: not JSON ({error.msg})") from None
            if not isinstance(record, dict) or not isinstance(record.get(text_field), str):
                raise InputError(
                    f"corpus.source: {path}, line {number}: no text field {text_field!r}; "
                    "set corpus.text_field"
                )
            yield record[text_field]


def _parquet_column(path: Path, text_field: str) -> Iterator[Document]:
    from pyarrow import ArrowInvalid, parquet

    try:
        file = parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise InputError(f"corpus.source: {path} is not a Parquet file ({error})") from None
    if text_field not in file.schema_arrow.names:
        raise InputError(
            f"corpus.source: {path} has no column {text_field!r}, only {', '.join(file.schema_arrow.names)}; "
            "set corpus.text_field"
        )
    for batch in file.iter_batches(columns=[text_field]):
        yield from (text for text in batch.column(0).to_pylist() if text)


def _hub_source(spec: str, text_field: str) -> Source:
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
    part = Part(name, "unknown", lambda: (row[text_field] for row in dataset))
    return Source(spec, fingerprint, (part,))
