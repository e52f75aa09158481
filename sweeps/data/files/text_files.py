"""Documents of text files: paragraphs of .txt, records of .jsonl, cells of .parquet and .arrow."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scaling.errors import InputError
from sweeps.data.files.columns import batches_of
from sweeps.data.files.json_lines import texts_of
from sweeps.data.files.source_files import SourceFile, text_lines

MAX_DOCUMENT_BYTES = 2**23
"""Characters of a paragraph at which streaming cuts it, at the end of a line."""


def documents_of(file: SourceFile, text_field: str, *, streaming: bool = False) -> Iterator[str]:
    """Yield the documents of a file.

    Args:
        file: Its suffix tells how it is read.
        text_field: The field or column that holds the text.
        streaming: Read paragraphs line by line, in bounded memory.

    Raises:
        InputError: If it is damaged, or holds no such text.
    """
    if file.suffix == ".txt":
        yield from _streamed_paragraphs(file) if streaming else _paragraphs(file)
    elif file.suffix == ".jsonl":
        yield from texts_of(file, text_field)
    else:
        yield from _column(file, text_field)


def _paragraphs(file: SourceFile) -> Iterator[str]:
    """Yield the paragraphs of a text file, or the whole file if it has no blank lines."""
    try:
        with text_lines(file) as lines:
            text = lines.read()
    except UnicodeDecodeError as error:
        raise _not_text(file, f"{error.reason} at byte {error.start}") from None
    yield from re.split(r"\n[ \t]*\n", text)


def _streamed_paragraphs(file: SourceFile) -> Iterator[str]:
    """Yield the paragraphs of a text file; one without blank lines is cut into documents of bounded size."""
    paragraph: list[str] = []
    size = 0
    try:
        with text_lines(file) as lines:
            while line := lines.readline(MAX_DOCUMENT_BYTES):
                if not line.strip(" \t\n"):
                    yield "".join(paragraph)
                    paragraph, size = [], 0
                    continue
                paragraph.append(line)
                size += len(line)
                if size >= MAX_DOCUMENT_BYTES:
                    yield "".join(paragraph)
                    paragraph, size = [], 0
    except UnicodeDecodeError as error:
        raise _not_text(file, error.reason) from None
    yield "".join(paragraph)


def _not_text(file: SourceFile, reason: str) -> InputError:
    return InputError(f"corpus.source: {file.name} is not UTF-8 text ({reason})")


def _column(file: SourceFile, text_field: str) -> Iterator[str]:
    for batch in batches_of(file, text_field, "text"):
        yield from (text for text in batch.to_pylist() if text)
