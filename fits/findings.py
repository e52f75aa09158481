"""Findings about a table's design, each with a remedy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Limit of what a design can identify, with a remedy."""

    level: str
    """"refuse" if nothing can be fitted, "warn" if something is not determined."""
    message: str
    """Problem, with its numbers."""
    remedy: str
    """Runs or changes that would solve it."""

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}"
