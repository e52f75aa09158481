"""Parsers of options that are numbers, by the grammar of ``docs/reference/quantities.md``.

Left to themselves, options take what the grammar refuses: ``1_5`` as 15 and ``010`` as 10.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from scaling.errors import InputError
from scaling.units import parse_count, parse_number


def count_from(least: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers, none below ``least``."""

    def integer(text: str) -> int:
        try:
            found = parse_count(text, "the value")
        except InputError as error:  # a ValueError, whose words typer would drop
            raise typer.BadParameter(str(error)) from error
        if least is not None and found < least:
            raise typer.BadParameter(f"must be {least} or more, not {text}")
        return found

    return integer


def positive(text: str) -> float:
    """A finite number above zero."""
    found = number(text)
    if found <= 0:
        raise typer.BadParameter(f"must be positive, not {text}")
    return found


def number(text: str) -> float:
    """A finite number of any sign."""
    try:
        return parse_number(text, "the value")
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
