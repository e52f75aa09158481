"""One thing that limits what can be learned from a table, with its cure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing about the design that limits what can be learned."""

    level: str
    """"refuse": nothing can be fitted; "warn": something will not be determined."""
    what: str
    """What is wrong, with the numbers."""
    mend: str
    """The runs that would mend it."""

    def __str__(self) -> str:
        return f"{self.what}. {self.mend}"
