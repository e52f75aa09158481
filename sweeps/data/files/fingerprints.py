"""Hashes that identify files: of all bytes, or for large sources of samples of them.

A hash is kept in the cache of this machine by path, size and time of the last change: no process reads a
file again whose size and time are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Literal, cast

from scaling.errors import InputError
from sweeps.data.cache import cache_dir
from sweeps.data.files.source_files import SourceFile

LARGE_BYTES = 2**30
"""Bytes of files from which a source is large: identified by samples, and tokenized with bounded memory."""
SAMPLES, SAMPLE_BYTES = 16, 2**16
"""Samples of a file, spread evenly from its first byte to its last, and bytes of each."""
REMEMBERED_BYTES = 2**24
"""Bytes from which the hash of all bytes of a file is kept in the cache."""
READERS = 8
"""Files that are hashed at a time."""

Verify = Literal["samples", "full"]


def verify_of(files: Sequence[SourceFile], asked: Verify | None) -> Verify:
    """Return how files are identified: as asked, else by samples if they are large together."""
    return asked or ("samples" if is_large(files) else "full")


def is_large(files: Sequence[SourceFile]) -> bool:
    """Return True for files of ``LARGE_BYTES`` or more together."""
    return sum(file.size for file in files) >= LARGE_BYTES


def hashes_of(files: Sequence[SourceFile], verify: Verify) -> list[str]:
    """Return the hash of each file; those of samples say so, and include the size.

    Raises:
        InputError: If a file cannot be read.
    """
    hash_of = full_hash if verify == "full" else sampled_hash
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(hash_of, files))


def full_hash(file: SourceFile) -> str:
    """Return the SHA-256 of all bytes."""
    if file.size < REMEMBERED_BYTES:
        return _sha256(file)
    return _remembered(file, "full", _sha256)


def sampled_hash(file: SourceFile) -> str:
    """Return a SHA-256 of size and samples: ``sampled-...``."""
    return _remembered(file, "samples", _sample)


def sampled_hash_of_path(path: Path) -> str:
    """Return the sampled hash of a file of the cache, which is read each time."""
    return _sample(SourceFile(str(path), path.stat().st_size, ""))


def _sha256(file: SourceFile) -> str:
    try:
        with file.open() as opened:
            return hashlib.file_digest(cast(BufferedReader, opened), "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"corpus.source: {file.name} cannot be read ({error.strerror or error})") from None


def _sample(file: SourceFile) -> str:
    digest = hashlib.sha256(f"{file.size} ".encode())
    last = max(0, file.size - SAMPLE_BYTES)
    starts = sorted({number * last // (SAMPLES - 1) for number in range(SAMPLES)})
    with file.open() as opened:
        for start in starts:
            opened.seek(start)
            digest.update(opened.read(SAMPLE_BYTES))
    return f"sampled-{digest.hexdigest()}"


def _remembered(file: SourceFile, kind: Verify, make: Callable[[SourceFile], str]) -> str:
    record = cache_dir() / "fingerprints" / hashlib.sha256(f"{kind} {file.name}".encode()).hexdigest()[:32]
    state = {"name": file.name, "size": file.size, "version": file.version}
    with suppress(OSError, ValueError, AttributeError):
        known = json.loads(record.read_text())
        if file.version and {name: known.get(name) for name in state} == state:
            return str(known["hash"])
    found = make(file)
    file.require_unchanged()
    with suppress(OSError):  # a cache that cannot be written is told where tokens are made
        record.parent.mkdir(parents=True, exist_ok=True)
        scratch = record.with_name(f".{record.name}-{uuid.uuid4().hex}")
        scratch.write_text(json.dumps(state | {"hash": found}))
        os.replace(scratch, record)  # noqa: PTH105
    return found
