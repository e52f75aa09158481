"""Records of .jsonl files: a field that holds text, or lists of token ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from scaling.errors import InputError
from sweeps.data.files.source_files import SourceFile

FIRST_RECORDS = 1024
"""Records among which one that is not empty tells what a field holds."""
FIRST_FIELDS = 8
"""Fields of a record that an error names."""
MISSING = object()
ADVICE = "set corpus.text_field"


def holds_ids(file: SourceFile, field: str) -> bool:
    """Return True if the first record with something in the field has a list there."""
    with suppress(InputError):  # told where the file is read
        found = (value for _, value in islice(records_of(file, field, ""), FIRST_RECORDS) if value)
        return isinstance(next(found, None), list)
    return False


def texts_of(file: SourceFile, field: str) -> Iterator[str]:
    """Yield the texts in a field that are not empty.

    Raises:
        InputError: If a line is not JSON in UTF-8, or has no text there.
    """
    for where, value in records_of(file, field, "text"):
        if not isinstance(value, str):
            raise InputError(f"{where}: field {field!r} holds {json.dumps(value)[:40]}, not text; {ADVICE}")
        try:
            value.encode()  # a lone surrogate is valid JSON, but not text
        except UnicodeError as error:
            raise _not_json(where, error) from None
        if value:
            yield value


def records_of(file: SourceFile, field: str, what: str) -> Iterator[tuple[str, Any]]:
    """Yield what records have in a field, ``null`` left out, each with its place for errors.

    Args:
        file: File of a JSON object a line.
        field: The field.
        what: What it holds, for errors.

    Raises:
        InputError: If a line is not JSON in UTF-8, or has no such field.
    """
    with file.open() as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"corpus.source: {file.name}, line {number}"
            try:
                record = json.loads(line.decode("utf-8-sig"))
            except (UnicodeError, RecursionError, json.JSONDecodeError) as error:
                raise _not_json(where, error) from None
            value = record.get(field, MISSING) if isinstance(record, dict) else MISSING
            if value is MISSING:
                raise _no_field(where, field, what, record)
            if value is not None:
                yield where, value


def _no_field(where: str, field: str, what: str, record: Any) -> InputError:
    fields = ", ".join(islice(record, FIRST_FIELDS)) if isinstance(record, dict) else ""
    return InputError(f"{where}: no field {field!r} with {what}, but {fields or 'none'}; {ADVICE}")


def _not_json(where: str, error: Exception) -> InputError:
    return InputError(f"{where}: not JSON in UTF-8 ({error})")
