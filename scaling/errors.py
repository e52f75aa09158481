"""The one error that a user's input can cause."""

from __future__ import annotations


class InputError(ValueError):
    """Something a user gave is wrong; the message says what, where, and what would be right.

    The command line prints the message alone and exits with 2; it never shows a traceback for it.
    """


class MissingExtra(InputError, ImportError):
    """A package of an optional extra is not installed; the message says how to get it."""
