"""Constants of repeated data in a calibration's file, checked as they are read."""

from __future__ import annotations

from scaling.calibration.parsing import is_number, mapping, read
from scaling.errors import InputError
from scaling.repeated_data import Repetition


def read_repetition(value: object, where: str) -> Repetition | None:
    """Return the constants from their parsed JSON, or None; errors name ``where``."""
    if value is None:
        return None
    fields = mapping(value, where)
    for name, number in fields.items():
        if name.endswith("_interval"):
            pair = isinstance(number, list) and len(number) == 2 and all(map(is_number, number))
            if not pair or not 0 < number[0] <= number[1]:
                raise InputError(
                    f"{where}.{name}: must be [smallest, largest], both positive, not {number!r}"
                )
        elif not is_number(number) or number <= 0:
            raise InputError(f"{where}.{name}: must be a positive number, not {number!r}")
    return read(Repetition, {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}, where)
