"""Cache of this machine: downloaded files and tokenized corpora, addressed by content."""

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
    """Return ``$DISTLAW_CACHE``, else ``$XDG_CACHE_HOME/distlaw``, else ``~/.cache/distlaw``."""
    if chosen := os.environ.get("DISTLAW_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distlaw"


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of ``target`` among the processes of this machine; it is released if its holder dies.

    Incomplete copies left by holders that died are removed.
    """
    locks = cache_dir() / "locks"
    _require_writable(locks)
    with FileLock(locks / target.name):
        for leftover in target.parent.glob(f".{target.name}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yield a temporary directory that is renamed to ``target`` if the block succeeds, else removed.

    Readers see all of ``target`` or nothing. If another process was faster, its copy stays.
    """
    _require_writable(target.parent)
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


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"cache {folder}: cannot be written ({error.strerror}); set DISTLAW_CACHE to a directory that can"
        ) from None
