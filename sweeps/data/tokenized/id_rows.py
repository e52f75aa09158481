"""Rows of token ids: lists in columns of Parquet and Arrow files, or in a field of JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.data.files.columns import batches_of
from sweeps.data.files.json_lines import records_of
from sweeps.data.files.source_files import SourceFile
from sweeps.data.tokenized.checks import check_ids
from sweeps.data.tokenized.documents import Ids
from sweeps.data.tokenizer import ExternalTokenizer


def rows_of(file: SourceFile, field: str, tokenizer: ExternalTokenizer) -> Iterator[Ids]:
    """Yield the rows of a file that are not empty, checked to be ids of the vocabulary.

    Raises:
        InputError: If it is damaged, has no such column or field, or holds something else.
    """
    return (_json_rows if file.suffix == ".jsonl" else _column_rows)(file, field, tokenizer)


def _column_rows(file: SourceFile, field: str, tokenizer: ExternalTokenizer) -> Iterator[Ids]:
    position = 0
    for batch in batches_of(file, field, "ids"):
        rows = batch.drop_null()
        flat = rows.flatten()
        if flat.null_count:
            raise InputError(f"corpus.source: {file.name}: column {field!r} has empty values among its ids")
        ids = flat.to_numpy(zero_copy_only=False)
        check_ids(f"corpus.source: {file.name}", ids, tokenizer, position, f" of column {field!r}")
        position += len(ids)
        for row in np.split(ids, np.cumsum(_row_lengths(rows))[:-1]) if len(rows) else []:
            if len(row):
                yield row


def _row_lengths(rows: Any) -> NDArray[np.int64]:
    import pyarrow.compute

    return np.asarray(pyarrow.compute.list_value_length(rows).to_numpy(zero_copy_only=False), dtype=np.int64)


def _json_rows(file: SourceFile, field: str, tokenizer: ExternalTokenizer) -> Iterator[Ids]:
    of = f" of field {field!r}"
    for where, row in records_of(file, field, "lists of token ids"):
        if not isinstance(row, list):
            raise InputError(f"{where}: {_not_ids(field)}, found {row!r:.60}")
        if wrong := [number for number, each in enumerate(row) if type(each) is not int]:
            raise InputError(
                f"{where}: {_not_ids(field)}, found {row[wrong[0]]!r:.60} at position {wrong[0]:,}"
            )
        if not row:
            continue
        try:
            ids = np.array(row, dtype=np.int64)
        except OverflowError:
            raise InputError(f"{where}: {max(row, key=abs)}{of} is no token id") from None
        check_ids(where, ids, tokenizer, of=of)
        yield ids


def _not_ids(field: str) -> str:
    return f"{field!r} is no list of token ids, which are whole numbers"
