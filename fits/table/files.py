"""Reader of run tables in parts: CSV, TSV, JSON, JSON lines and Parquet, compressed or not."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pandas as pd

from fits.table.columns.column_names import number_duplicates
from fits.table.parquet import parquet_parts, zstd_reader
from scaling.errors import InputError
from scaling.unique_keys import refuse_duplicate_keys

ROWS_PER_PART = 250_000
"""Rows of one part of a file."""
COMPRESSION_MAGIC = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".zst": b"\x28\xb5\x2f\xfd", ".xz": b"\xfd7zXZ"}
"""Suffixes of compressed files, and their first bytes."""
SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".parquet", ".jsonl", ".ndjson", ".json")
STANDARD_INPUT = "-"

Parts = Iterator[pd.DataFrame]
Open = Callable[[], BinaryIO]

DECOMPRESSORS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": zstd_reader,
}
DAMAGED = (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)
"""Exceptions of readers and decompressors for a file that is cut off or damaged."""


def read_parts(path: str | Path | BinaryIO) -> Parts:
    """Yield the table in a file part by part, with all of its headers as text.

    Args:
        path: A file, ``-`` for standard input, or an open binary file. The format of the last two, and of
            suffixes other than ``SUFFIXES``, is detected from the first bytes.

    Raises:
        InputError: for a missing file, or one that holds no table.
    """
    if not isinstance(path, str | Path):
        yield from _parts_of_bytes(path.read(), "the table")
    elif str(path) == STANDARD_INPUT:
        yield from _parts_of_bytes(sys.stdin.buffer.read(), "standard input")
    else:
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        suffixes = [suffix.lower() for suffix in path.suffixes]
        packed = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSION_MAGIC else ""
        yield from _parts_of_file(lambda: _open_file(path, packed), suffixes[-1] if suffixes else "")


def _parts_of_bytes(content: bytes, name: str) -> Parts:
    if not content.strip():
        raise InputError(f"{name} is empty")
    packed = next((suffix for suffix, magic in COMPRESSION_MAGIC.items() if content.startswith(magic)), "")
    yield from _parts_of_file(lambda: _decompress(io.BytesIO(content), packed), "")


def _open_file(path: Path, packed: str) -> BinaryIO:
    with path.open("rb") as file:
        start = file.read(8)
    if packed and not start.startswith(COMPRESSION_MAGIC[packed]):
        raise InputError(f"not compressed as its suffix {packed} indicates")
    return _decompress(path, packed)


def _decompress(source: Path | io.BytesIO, packed: str) -> BinaryIO:
    """Open a file, or its bytes, for reading its decompressed content."""
    if packed:
        return cast(BinaryIO, DECOMPRESSORS[packed](source))
    return source.open("rb") if isinstance(source, Path) else source


def _parts_of_file(reopen: Open, suffix: str) -> Parts:
    """Yield the parts of a file that can be opened twice: first to detect its encoding, then to read it."""
    with reopen() as file:
        start = file.read(65536)
    kind = suffix if suffix in SUFFIXES else _sniff_format(start, suffix)
    if kind == ".parquet":
        with reopen() as file:
            yield from parquet_parts(file, ROWS_PER_PART)
        return
    encoding = _detect_encoding(reopen, start)
    with reopen() as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
        if kind in (".jsonl", ".ndjson"):
            yield from _json_lines_parts(text)
        elif kind == ".json":
            yield from _json_parts(text.read())
        else:
            yield from _delimited_parts(text, SEPARATORS.get(kind, ","))


def _sniff_format(start: bytes, suffix: str) -> str:
    """Detect a format, as a suffix, from the first bytes of a file."""
    if start.startswith(b"PAR1"):
        return ".parquet"
    if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise InputError("the file is a spreadsheet or an archive; save the table of runs as CSV")
    text = start.lstrip(b"\xef\xbb\xbf\xff\xfe").replace(b"\x00", b"").lstrip()
    if text.startswith((b"{", b"[")):
        return ".json"
    if not text or (suffix and b"\n" not in text and b"\r" not in text):
        raise InputError(
            f"the suffix of a runs table must be {', '.join(SUFFIXES)}, or one of these compressed, not "
            f"{suffix!r}"
        )
    return ".csv"


def _detect_encoding(reopen: Open, start: bytes) -> str:
    """Detect an encoding: UTF-8, UTF-16 by byte order mark or zero bytes, else Windows-1252."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\x00" in start[:200]:
        return "utf-16-le" if start[1:2] == b"\x00" else "utf-16-be"
    try:
        with reopen() as file, io.TextIOWrapper(file, encoding="utf-8") as text:
            while text.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return "cp1252" if _can_decode(reopen, "cp1252") else "latin-1"
    return "utf-8-sig"


def _can_decode(reopen: Open, encoding: str) -> bool:
    try:
        with reopen() as file, io.TextIOWrapper(file, encoding=encoding) as text:
            while text.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _delimited_parts(text: io.TextIOBase, separator: str) -> Parts:
    """Yield parts of a table with a header, separated by commas, tabs, semicolons or bars; cells are text."""
    head = ""
    while not head.strip():
        head = text.readline()
        if not head:
            raise InputError("the table has no rows")
    separator = _detect_separator(head, separator)
    while head.count('"') % 2 and (more := text.readline()):
        head += more
    raw = next(csv.reader([head], delimiter=separator, skipinitialspace=True), [])
    headers = number_duplicates(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            with pd.read_csv(
                text, sep=separator, header=None, names=headers, index_col=False, dtype=str,
                skipinitialspace=True, chunksize=ROWS_PER_PART, low_memory=False,
            ) as parts:  # fmt: skip
                yield from parts
        except pd.errors.ParserWarning:
            raise InputError(
                f"rows have more cells than the header has names ({len(headers)}): if a comma is a decimal "
                "comma, write points; if it is part of a name, put the cell in quotes"
            ) from None


def _detect_separator(head: str, usual: str) -> str:
    """Detect the separator of a header; the usual one, if the header has it."""
    outside = "".join(head.split('"')[::2])
    others = sorted((",", "\t", ";", "|"), key=lambda mark: -outside.count(mark))
    return usual if usual in outside else next((mark for mark in others if mark in outside), usual)


def _json_lines_parts(text: Iterable[str]) -> Parts:
    def records() -> Iterator[dict[str, Any]]:
        for number, line in enumerate(text, 1):
            if line.strip():
                yield _record(_load_json(line, f"line {number}"), f"line {number}")

    yield from _frames(records())


def _json_parts(content: str) -> Parts:
    """Yield parts of a JSON array of objects, an object of columns, or JSON lines."""
    lines = content.strip().splitlines()
    try:
        found = _load_json(content, "the file")
    except InputError:
        if len(lines) < 2 or not lines[0].strip().endswith("}"):
            raise
        yield from _json_lines_parts(lines)
        return
    if isinstance(found, list):
        yield from _frames(_record(entry, f"entry {i}") for i, entry in enumerate(found, 1))
    elif isinstance(found, dict) and found and all(isinstance(v, list) for v in found.values()):
        yield _frame([dict(zip(found, row, strict=True)) for row in _rows_of_columns(found)])
    elif isinstance(found, dict) and _is_indexed(found):
        yield _frame(
            [
                dict(zip(found, row, strict=True))
                for row in _rows_of_columns({name: list(values.values()) for name, values in found.items()})
            ]
        )
    elif isinstance(found, dict):
        yield _frame([_record(found, "the file")])
    else:
        raise InputError("a JSON table must be an array of objects, one for each run")


def _is_indexed(found: dict[str, Any]) -> bool:
    """Return True for an object of columns with values by index, as pandas writes them."""
    columns = list(found.values())
    return bool(columns) and all(isinstance(c, dict) and list(c) == list(columns[0]) for c in columns)


def _rows_of_columns(columns: dict[str, list[Any]]) -> Iterator[tuple[Any, ...]]:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the columns have different lengths: {lengths}")
    return zip(*columns.values(), strict=True)


def _load_json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=refuse_duplicate_keys(where))
    except RecursionError:
        raise InputError(f"{where} is nested too deeply") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} is not JSON: {error}") from None


def _record(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} is not an object with named values (one run)")
    return dict(_flatten(value, ""))


def _flatten(value: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested objects under dotted names: ``config.n_params``."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flatten(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner


def _frames(records: Iterator[dict[str, Any]]) -> Parts:
    while chunk := list(itertools.islice(records, ROWS_PER_PART)):
        yield _frame(chunk)


def _frame(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return records as a table, with integers of any size."""
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
