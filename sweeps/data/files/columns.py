"""Columns of text or of token ids in Parquet files and in Arrow files of Hugging Face datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from scaling.errors import InputError, MissingExtra
from sweeps.data.files.source_files import SourceFile, file_at

COLUMN_SUFFIXES = (".parquet", ".arrow")
ROWS = 1024
"""Rows of a Parquet file that are read at a time."""

Kind = Literal["text", "ids"]


def kind_of_column(file: SourceFile, field: str) -> Kind | None:
    """Return what a column holds, from the schema; None if there is no such column, or it cannot be told."""
    with suppress(InputError, MissingExtra):
        pa = _pyarrow(file)
        with _opened(file, pa) as opened:
            return kind_of_type(_schema(opened).field(field).type) if field in _schema(opened).names else None
    return None


def kind_of_type(kind: Any) -> Kind | None:
    """Return what a type of pyarrow is: text, lists of integers, or None."""
    from pyarrow import types

    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return "ids" if lists and types.is_integer(kind.value_type) else None


def row_count(file: SourceFile) -> int:
    """Return the rows of a Parquet or Arrow file."""
    with _opened(file, _pyarrow(file)) as opened:
        if hasattr(opened, "metadata"):
            return int(opened.metadata.num_rows)
        first = next(iter(_schema(opened).names))
        return sum(len(column) for column in _columns(opened, first))


def batches_of(file: SourceFile, field: str, expected: Kind) -> Iterator[Any]:
    """Yield a column as arrays of pyarrow.

    Raises:
        InputError: If the file is damaged, or has no such column of that kind.
        MissingExtra: If pyarrow is not installed.
    """
    pa = _pyarrow(file)
    with _opened(file, pa) as opened:
        schema = _schema(opened)
        if field not in schema.names:
            raise InputError(
                f"corpus.source: {file.name} has no column {field!r}, only {', '.join(schema.names)}; "
                "set corpus.text_field"
            )
        if kind_of_type(schema.field(field).type) != expected:
            what = "text" if expected == "text" else "lists of token ids"
            raise InputError(
                f"corpus.source: {file.name}: column {field!r} holds {schema.field(field).type}, not {what}"
            )
        try:
            yield from _columns(opened, field)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"corpus.source: {file.name} is damaged ({error})") from None


def dataset_files(folder: Path) -> list[SourceFile] | None:
    """Return the Arrow files of a dataset that ``save_to_disk`` wrote; None for another directory.

    Raises:
        InputError: For a directory of several splits, one of which is to be named, or a missing file.
    """
    if splits := _read_json(folder / "dataset_dict.json").get("splits"):
        raise InputError(
            f"corpus.source: {folder} holds the splits {', '.join(splits)}; name one, as {folder / splits[0]}"
        )
    entries = _read_json(folder / "state.json").get("_data_files")
    return [file_at(str(folder / entry["filename"])) for entry in entries] if entries else None


def _read_json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    return {}


def _pyarrow(file: SourceFile) -> Any:
    from fits.table.parquet import import_pyarrow  # heavy

    return import_pyarrow(f"corpus.source: {file.name}")


def _opened(file: SourceFile, pa: Any) -> Any:
    import pyarrow.ipc
    import pyarrow.parquet

    parquet = file.suffix == ".parquet"
    try:
        place = str(file.local) if file.local else file.open()
        if parquet:
            return pyarrow.parquet.ParquetFile(place)
        if file.read(0, 6) == b"ARROW1":
            return pyarrow.ipc.open_file(pa.memory_map(place) if file.local else place)
        return pyarrow.ipc.open_stream(pa.memory_map(place) if file.local else place)
    except (pa.ArrowException, OSError) as error:
        what = "a Parquet file" if parquet else "an Arrow file"
        raise InputError(f"corpus.source: {file.name} is not {what} ({error})") from None


def _schema(opened: Any) -> Any:
    return opened.schema_arrow if hasattr(opened, "schema_arrow") else opened.schema


def _columns(opened: Any, field: str) -> Iterator[Any]:
    if hasattr(opened, "iter_batches"):
        for batch in opened.iter_batches(batch_size=ROWS, columns=[field]):
            yield batch.column(0)
        return
    stream = hasattr(opened, "read_next_batch")
    for batch in opened if stream else map(opened.get_batch, range(opened.num_record_batches)):
        yield batch.column(batch.schema.get_field_index(field))
