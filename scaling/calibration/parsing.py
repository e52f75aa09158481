"""Parts of a calibration's file, each checked as it is read; errors name the file and the field."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from scaling.unique_keys import refuse_duplicate_keys

Draws = dict[str, dict[str, NDArray[np.float64]]]
T = TypeVar("T")


def parse(text: str, where: str) -> object:
    """Parse JSON whose numbers are all finite and whose objects name each key once."""

    def refuse(constant: str) -> NoReturn:
        raise InputError(f"{where}: holds {constant}; every number must be finite")

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=refuse_duplicate_keys(f"{where}:"))
    except RecursionError:
        raise InputError(f"{where}: not JSON, or nested too deeply") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from None


def read(build: Callable[..., T], values: object, where: str) -> T:
    """Return ``build`` called with named values; unknown or missing ones are an :class:`InputError`."""
    values = mapping(values, where)
    try:
        return build(**values)
    except TypeError as error:
        reason = str(error).partition("() ")[2]
        raise InputError(f"{where}: {reason or error}") from None


def read_numbers(value: object, where: str, least: float = -math.inf) -> dict[str, float]:
    """Return finite numbers by name, none below ``least``."""
    numbers = mapping(value, where)
    for name, number in numbers.items():
        if not is_number(number):
            raise InputError(f"{where}.{name}: must be a finite number, not {number!r:.60}")
        if number < least:
            raise InputError(f"{where}.{name}: must be {least:g} or more, not {number!r}")
    return numbers


def is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def mapping(value: object, where: str) -> dict[str, Any]:
    """Return an object with named values."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: must be an object with named values, not {value!r}")
    return value


def read_draws(content: object, where: str) -> Draws:
    """Return draws of coefficients, by law and by name; the arrays are read-only."""
    draws: Draws = {}
    for kind, columns in mapping(content, f"{where}: draws").items():
        named_columns = mapping(columns, f"{where}: draws.{kind}")
        for name, values in named_columns.items():
            if not isinstance(values, list) or not all(map(is_number, values)):
                raise InputError(f"{where}: draws.{kind}.{name}: must be a list of finite numbers")
        draws[kind] = {name: _fixed(values) for name, values in named_columns.items()}
    return draws


def _fixed(values: list[float]) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False  # a published calibration is loaded once and shared
    return array
