"""The cache on this machine: fetched files and tokenised corpora, found by content."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from scaling.errors import InputError


def cache_dir() -> Path:
    """``$DISTLAW_CACHE``, else ``$XDG_CACHE_HOME/distlaw``, else ``~/.cache/distlaw``."""
    if chosen := os.environ.get("DISTLAW_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distlaw"


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of ``target`` among the processes of this machine; it is free when its holder dies.

    Leftovers of holders that died while they made ``target`` are removed.
    """
    locks = cache_dir() / "locks"
    _writable(locks)
    with FileLock(locks / target.name):
        for leftover in target.parent.glob(f".{target.name}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


@contextmanager
def published(target: Path) -> Iterator[Path]:
    """A scratch directory that becomes ``target`` if the block succeeds, and vanishes if it fails.

    Readers see all of ``target`` or nothing. Where another process was faster, its copy stays.
    """
    _writable(target.parent)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield scratch
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"cache {folder}: cannot be written ({error.strerror}); set DISTLAW_CACHE to a directory that can"
        ) from None
