"""Files of runs as data frames, in parts: CSV, TSV, JSON, JSON lines and Parquet, compressed or not."""

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

from fits.table.column_names import distinct
from fits.table.parquet import parquet_parts, zstd_reader
from scaling.errors import InputError

READ_AT_ONCE = 250_000
"""Rows of a file that are read before more of it is."""
COMPRESSED = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".zst": b"\x28\xb5\x2f\xfd", ".xz": b"\xfd7zXZ"}
"""Suffixes of compressed files, and what such a file begins with."""
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


def parts_of(path: str | Path | BinaryIO) -> Parts:
    """The table in a file, part by part, with all of its headers as text.

    ``path`` may be ``-``, standard input, or an open binary file; what such a file holds is told from its
    beginning, as it is for a suffix that is not one of ``SUFFIXES``.

    Raises InputError for a file that is not there or holds no table.
    """
    if not isinstance(path, str | Path):
        yield from _of_bytes(path.read(), "the table")
    elif str(path) == STANDARD_INPUT:
        yield from _of_bytes(sys.stdin.buffer.read(), "standard input")
    else:
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
        suffixes = [suffix.lower() for suffix in path.suffixes]
        packed = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSED else ""
        yield from _of_file(lambda: _opened(path, packed), suffixes[-1] if suffixes else "")


def _of_bytes(content: bytes, name: str) -> Parts:
    if not content.strip():
        raise InputError(f"{name} is empty")
    packed = next((suffix for suffix, magic in COMPRESSED.items() if content.startswith(magic)), "")
    yield from _of_file(lambda: _unpacked(io.BytesIO(content), packed), "")


def _opened(path: Path, packed: str) -> BinaryIO:
    with path.open("rb") as file:
        start = file.read(8)
    if packed and not start.startswith(COMPRESSED[packed]):
        raise InputError(f"not compressed as its suffix {packed} says")
    return _unpacked(path, packed)


def _unpacked(source: Path | io.BytesIO, packed: str) -> BinaryIO:
    """Open a file, or its bytes, for reading what it holds once it is decompressed."""
    if packed:
        return cast(BinaryIO, DECOMPRESSORS[packed](source))
    return source.open("rb") if isinstance(source, Path) else source


def _of_file(reopen: Open, suffix: str) -> Parts:
    """The parts of a file that can be opened twice: once to see how its text is encoded."""
    with reopen() as file:
        start = file.read(65536)
    kind = suffix if suffix in SUFFIXES else _kind(start, suffix)
    if kind == ".parquet":
        with reopen() as file:
            yield from parquet_parts(file, READ_AT_ONCE)
        return
    encoding = _encoding(reopen, start)
    with reopen() as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
        if kind in (".jsonl", ".ndjson"):
            yield from _json_lines(text)
        elif kind == ".json":
            yield from _json(text.read())
        else:
            yield from _delimited(text, SEPARATORS.get(kind, ","))


def _kind(start: bytes, suffix: str) -> str:
    """The suffix that a file's beginning stands for."""
    if start.startswith(b"PAR1"):
        return ".parquet"
    if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise InputError("this is a spreadsheet or an archive; save the table of runs as CSV")
    text = start.lstrip(b"\xef\xbb\xbf\xff\xfe").replace(b"\x00", b"").lstrip()
    if text.startswith((b"{", b"[")):
        return ".json"
    if not text or (suffix and b"\n" not in text and b"\r" not in text):
        raise InputError(f"a runs table ends in {', '.join(SUFFIXES)}, perhaps compressed, not {suffix!r}")
    return ".csv"


def _encoding(reopen: Open, start: bytes) -> str:
    """UTF-8, what a byte order mark or zero bytes say, or else Windows' Western European."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\x00" in start[:200]:
        return "utf-16-le" if start[1:2] == b"\x00" else "utf-16-be"
    try:
        with reopen() as file, io.TextIOWrapper(file, encoding="utf-8") as text:
            while text.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return "cp1252" if _decodes(reopen, "cp1252") else "latin-1"
    return "utf-8-sig"


def _decodes(reopen: Open, encoding: str) -> bool:
    try:
        with reopen() as file, io.TextIOWrapper(file, encoding=encoding) as text:
            while text.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _delimited(text: io.TextIOBase, separator: str) -> Parts:
    """Tables with a header, separated by commas, tabs, semicolons or bars; cells of ours stay text."""
    head = ""
    while not head.strip():
        head = text.readline()
        if not head:
            raise InputError("the table has no rows")
    separator = _separator(head, separator)
    while head.count('"') % 2 and (more := text.readline()):
        head += more
    raw = next(csv.reader([head], delimiter=separator, skipinitialspace=True), [])
    headers = distinct(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            with pd.read_csv(
                text, sep=separator, header=None, names=headers, index_col=False, dtype=str,
                skipinitialspace=True, chunksize=READ_AT_ONCE, low_memory=False,
            ) as parts:  # fmt: skip
                yield from parts
        except pd.errors.ParserWarning:
            raise InputError(
                f"rows have more cells than the header has names ({len(headers)}); is a comma a decimal "
                "comma, or part of a name? Write points, or put the cell in quotes"
            ) from None


def _separator(head: str, usual: str) -> str:
    """The separator of a header: the usual one, if it is in it at all."""
    outside = "".join(head.split('"')[::2])
    others = sorted((",", "\t", ";", "|"), key=lambda mark: -outside.count(mark))
    return usual if usual in outside else next((mark for mark in others if mark in outside), usual)


def _json_lines(text: Iterable[str]) -> Parts:
    def records() -> Iterator[dict[str, Any]]:
        for number, line in enumerate(text, 1):
            if line.strip():
                yield _record(_loaded(line, f"line {number}"), f"line {number}")

    yield from _framed(records())


def _json(content: str) -> Parts:
    """A JSON array of objects, an object of columns, or JSON lines."""
    lines = content.strip().splitlines()
    try:
        found = _loaded(content, "the file")
    except InputError:
        if len(lines) < 2 or not lines[0].strip().endswith("}"):
            raise
        yield from _json_lines(lines)
        return
    if isinstance(found, list):
        yield from _framed(_record(entry, f"entry {i}") for i, entry in enumerate(found, 1))
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
        raise InputError("a JSON table is an array of objects, one for each run")


def _is_indexed(found: dict[str, Any]) -> bool:
    """Whether an object holds columns whose values stand by index, as pandas writes them."""
    columns = list(found.values())
    return bool(columns) and all(isinstance(c, dict) and list(c) == list(columns[0]) for c in columns)


def _rows_of_columns(columns: dict[str, list[Any]]) -> Iterator[tuple[Any, ...]]:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the columns have different lengths: {lengths}")
    return zip(*columns.values(), strict=True)


def _loaded(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, where))
    except RecursionError:
        raise InputError(f"{where} is nested too deeply") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} is not JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    found = dict(pairs)
    if len(found) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{where} gives {twice!r} twice")
    return found


def _record(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} is not an object with named values, one run")
    return dict(_flat(value, ""))


def _flat(value: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Nested objects under dotted names: ``config.n_params``."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner


def _framed(records: Iterator[dict[str, Any]]) -> Parts:
    while chunk := list(itertools.islice(records, READ_AT_ONCE)):
        yield _frame(chunk)


def _frame(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Records as a table, with integers of any size."""
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
