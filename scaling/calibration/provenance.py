"""Sources and circumstances of a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scaling.calibration.parsing import mapping, read
from scaling.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Sources and circumstances of a calibration, in words that can be printed.

    >>> from scaling import Calibration
    >>> Calibration.load("hoffmann2022").provenance.date
    '2022-03-29'
    """

    source: str
    """A citation, or the table that was fitted."""
    date: str
    """ISO date of the fit or of the publication."""
    command: str = ""
    """Command that reproduces it."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Package versions, by name."""
    corpus: str = ""
    tokenizer: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """Sentences that every use of the calibration should show."""


def read_provenance(value: object, where: str) -> Provenance:
    texts = dict(mapping(value, where))
    for name, text in texts.items():
        if name in ("notes", "warnings"):
            if not isinstance(text, list) or not all(isinstance(each, str) for each in text):
                raise InputError(f"{where}.{name}: must be a list of sentences, not {text!r}")
            texts[name] = tuple(text)
        elif not isinstance(text, dict if name == "software" else str):
            raise InputError(f"{where}.{name}: must be a text, not {text!r}")
    return read(Provenance, texts, where)
