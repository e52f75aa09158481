"""Files that a source names: by path, glob or URL of fsspec, each with its size and version."""

from __future__ import annotations

import glob
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from sweeps.data.named_corpora import NAMED_CORPORA

BUCKET_VERSION = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "updated", "mtime")
"""Fields in which file systems of fsspec report that a file has changed."""


def is_url(source: str) -> bool:
    """Return True for the URL of a bucket, such as ``s3://bucket/text/*.jsonl``."""
    return "://" in source


@dataclass(frozen=True, slots=True)
class SourceFile:
    """File of a source, on disk or in a bucket."""

    name: str
    """Path or URL."""
    size: int
    """Bytes."""
    version: str
    """Time of its last change, in nanoseconds, or a bucket's tag; a changed file has another."""

    @property
    def suffix(self) -> str:
        """Return the end of its name, in lower case: ``.jsonl``."""
        return Path(self.name).suffix.lower()

    @property
    def local(self) -> Path | None:
        """Return its path; None in a bucket."""
        return None if is_url(self.name) else Path(self.name)

    def open(self) -> BinaryIO:
        """Open it for reading bytes."""
        try:
            if (path := self.local) is not None:
                return path.open("rb")
            return cast(BinaryIO, _file_system(self.name)[0].open(self.name, "rb"))
        except Exception as error:  # each file system has other types
            raise _unreadable(self.name, error) from None

    def read(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``, or those up to its end."""
        with self.open() as file:
            file.seek(start)
            return file.read(length)

    def array(self, start: int, count: int, dtype: str) -> NDArray[Any]:
        """Return ``count`` numbers from byte ``start``, memory-mapped on disk and read from a bucket.

        Raises:
            InputError: If the file ends before.
        """
        width = np.dtype(dtype).itemsize
        if start + count * width > self.size:
            raise InputError(f"corpus.source: {self.name} ends within its numbers: it is torn")
        if count and (path := self.local) is not None:
            return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=(count,))
        return np.frombuffer(self.read(start, count * width), dtype=dtype)

    def require_unchanged(self) -> None:
        """Check that it is as it was when it was identified.

        Raises:
            InputError: If its size or version has changed.
        """
        now = file_at(self.name)
        if now != self:
            raise InputError(
                f"corpus.source: {self.name} changed while it was read ({self.size:,} bytes before, "
                f"{now.size:,} now); run again when nothing writes to it"
            )


def file_at(name: str) -> SourceFile:
    """Return the file at a path or URL.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        if not is_url(name):
            found = Path(name).stat()
            return SourceFile(name, found.st_size, str(found.st_mtime_ns))
        return _remote(name, _file_system(name)[0].info(name))
    except InputError:
        raise
    except Exception as error:
        raise _unreadable(name, error) from None


def find_files(source: str, suffixes: Sequence[str]) -> list[SourceFile]:
    """Return the files that a path, glob or URL names, by name.

    Raises:
        InputError: If there is none, one cannot be read, or one has another suffix.
    """
    files = _remote_files(source) if is_url(source) else _local_files(source)
    if not files:
        raise InputError(
            f"corpus.source: no file matches {source!r}; give {' or '.join(NAMED_CORPORA)}, a path or glob "
            f"of {', '.join(suffixes)}, or hf:OWNER/NAME"
        )
    for file in files:
        if file.suffix not in suffixes:
            raise InputError(f"corpus.source: {file.name} is not one of {', '.join(suffixes)}")
    return files


def _local_files(source: str) -> list[SourceFile]:
    place = Path(source).expanduser()
    if place.is_dir():
        raise InputError(f"corpus.source: {source!r} is a directory; name files, such as {place}/**/*.txt")
    found = [str(place)] if place.is_file() else glob.glob(str(place), recursive=True)  # noqa: PTH207
    return [file_at(str(path)) for path in map(Path, sorted(found)) if path.is_file()]


def _remote_files(source: str) -> list[SourceFile]:
    files, path = _file_system(source)
    scheme = source.partition("://")[0]
    try:
        found = files.glob(path, detail=True) if glob.has_magic(path) else {path: files.info(path)}
    except FileNotFoundError:
        return []
    except Exception as error:
        raise _unreadable(source, error) from None
    return [
        _remote(f"{scheme}://{str(name).lstrip('/')}", about)
        for name, about in sorted(found.items())
        if about["type"] == "file"
    ]


def _remote(url: str, about: dict[str, Any]) -> SourceFile:
    version = next((str(about[field]) for field in BUCKET_VERSION if about.get(field)), "")
    return SourceFile(url, int(about["size"]), version)


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise InputError(f"corpus.source: {url} cannot be opened ({error})") from None
    return files, str(path)


def _unreadable(name: str, error: Exception) -> InputError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    reason = getattr(error, "strerror", None) or first
    return InputError(f"corpus.source: {name} cannot be read ({reason})")


def text_lines(file: SourceFile) -> io.TextIOWrapper:
    """Open ``file`` as UTF-8 text, with any line ends and without a byte-order mark."""
    return io.TextIOWrapper(file.open(), encoding="utf-8-sig")
