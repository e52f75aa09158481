"""Parquet and Zstandard files, which need pyarrow, an optional package (170 MB)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO, cast

from scaling.errors import MissingExtra

if TYPE_CHECKING:
    import pandas as pd


def import_pyarrow(what: str) -> ModuleType:
    """Import pyarrow, with its Parquet reader.

    Args:
        what: the file or option that needs it, with which the message begins: ``"runs.parquet"``.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra(f"{what} needs pyarrow: pip install 'distlaw[parquet]'") from None
    return cast(ModuleType, pyarrow)


def zstd_reader(source: Path | io.BytesIO) -> BinaryIO:
    """Open a Zstandard file, or its bytes, for reading its decompressed content."""
    pyarrow = import_pyarrow("a Zstandard file (.zst)")
    stream = pyarrow.input_stream(source, compression="zstd")
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream)))


def parquet_parts(file: BinaryIO, rows: int) -> Iterator[pd.DataFrame]:
    """Yield the table in a Parquet file, ``rows`` rows at a time, with nested fields as dotted columns.

    A compressed file is read as a whole first, as Parquet files are read from the end.
    """
    pyarrow = import_pyarrow("a Parquet file")
    on_disk = isinstance(file, io.BufferedReader) and file.seekable()
    with pyarrow.parquet.ParquetFile(file if on_disk else io.BytesIO(file.read())) as parquet:
        for batch in parquet.iter_batches(batch_size=rows):
            table = pyarrow.Table.from_batches([batch])
            while any(pyarrow.types.is_struct(column.type) for column in table.schema):
                table = table.flatten()
            yield table.to_pandas()
