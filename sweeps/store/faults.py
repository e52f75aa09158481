"""Messages about stores that cannot be reached or used, for the errors of any client."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import wraps
from typing import Any

from sweeps.store.outcomes import is_transient

CREDENTIALS = "check the URL, and that credentials are in the environment or where the client looks for them"
NOTE_PREFIX = "store "
"""Prefix of a note on an exception that names its store."""
USER_ERRNOS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST),
}
"""Error numbers of a wrong path or permissions, as opposed to a failing system."""


class NotedFileSystem:
    """File system whose exceptions carry a note with the name of the store."""

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
                error.add_note(f"{NOTE_PREFIX}{self._root}")
                raise

        return call


def explain_store_error(error: BaseException) -> tuple[str, int] | None:
    """Return the message and exit code for an error of a store or a file; None for other errors."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(NOTE_PREFIX)]
    if notes:
        return f"{notes[0]}: {client_error_message(error)}", 2
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}", 2 if error.errno in USER_ERRNOS else 1
    return None


def client_error_message(error: BaseException) -> str:
    """Describe a client's error, with the things to check."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, PermissionError):
        return f"access is denied ({reason}); {CREDENTIALS}"
    if isinstance(error, FileNotFoundError):
        return f"not found ({reason}); check the URL"
    if is_transient(error):
        return f"cannot be reached ({reason}); check the URL and the network"
    return f"cannot be used ({reason}); {CREDENTIALS}"


def remedy(error: BaseException) -> str:
    """Return a remedy for a directory that cannot hold a store."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EACCES, errno.EROFS):
        return "its permissions must let you create files there; change them, or give another path"
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "make room there, or give another path"
    return "it must be a directory whose file system allows hard links"
