"""The one error that a user's input can cause."""

from __future__ import annotations


class InputError(ValueError):
    """Something a user gave is wrong; the message says what, where, and what would be right.

    The command line prints the message alone and exits with 2; it never shows a traceback for it. Fields that
    Python, HTTP and the command line call differently stand in backquotes, as in Python and HTTP; the command
    line prints its option instead.

    >>> from scaling import Scenario
    >>> Scenario("half", logits=2.0, pretraining=0.0)
    Traceback (most recent call last):
    scaling.errors.InputError: scenario half: logits must be a share from 0 to 1, not 2.0
    """


class MissingExtra(InputError, ImportError):
    """A package of an optional extra is not installed; the message says how to get it.

    >>> from scaling import InputError, MissingExtra
    >>> issubclass(MissingExtra, InputError), issubclass(MissingExtra, ImportError)
    (True, True)
    """
