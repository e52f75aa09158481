"""Documents about synthetic persons as a text that corpora name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps.unlearning.persons import SyntheticPersons

DOCUMENTS_EACH = 300
"""Documents about each person."""
END = "\n"


@dataclass(frozen=True, slots=True)
class SyntheticText:
    """Text that a function of this package makes, identified by the checksum of its documents."""

    sha256: str
    """Hash of the documents, each followed by a line break; a test compares it."""

    def fetch(self) -> Path:
        """Return the place of the generator."""
        return Path(__file__)


PERSONS_TEXT = SyntheticText("321dad3c48349ef65835afdab328f025299e8eef4054aa49f1499ee94be98a85")


def persons_documents(generator: Path) -> Iterator[str]:  # noqa: ARG001
    """Yield the documents of the corpus ``persons``, the same on every machine."""
    yield from SyntheticPersons.drawn().documents(DOCUMENTS_EACH)
