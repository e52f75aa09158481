"""Sentences about stores that cannot be reached or may not be used, whatever their clients raise."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import wraps
from typing import Any

from sweeps.store.outcomes import is_transient

CREDENTIALS = "check the URL, and that credentials are in the environment or where the client looks for them"
MARK = "store "
"""How a note on an exception begins that names the store it is about."""
OF_THE_ASKER = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST),
}
"""What a file system says where a path or its permissions are wrong, and not the system."""


class Named:
    """A file system whose exceptions carry a note that names the store."""

    def __init__(self, files: Any, root: str) -> None:
        self._files, self._root = files, root

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._files, name)
        return self._noted(found) if callable(found) else found

    def _noted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            try:
                return function(*arguments, **named)
            except Exception as error:
                error.add_note(f"{MARK}{self._root}")
                raise

        return call


def explain(error: BaseException) -> tuple[str, int] | None:
    """Return what to say about an error of a store or a file, and the exit code; None for other errors."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(MARK)]
    if notes:
        return f"{notes[0]}: {of_client(error)}", 2
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}", 2 if error.errno in OF_THE_ASKER else 1
    return None


def of_client(error: BaseException) -> str:
    """Return what a client's error means for the store, with what to check."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, PermissionError):
        return f"access is denied ({said}); {CREDENTIALS}"
    if isinstance(error, FileNotFoundError):
        return f"not found ({said}); check the URL"
    if is_transient(error):
        return f"cannot be reached ({said}); check the URL and the network"
    return f"cannot be used ({said}); {CREDENTIALS}"


def remedy(error: BaseException) -> str:
    """Return what to do where a directory cannot hold a store."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EACCES, errno.EROFS):
        return "its permissions must let you create files there; change them, or give another path"
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "make room there, or give another path"
    return "it must be a directory whose file system allows hard links"
