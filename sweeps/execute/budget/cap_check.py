"""Comparison of the cost of jobs with the caps, as of one reading of the store."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.estimate.bill import Bill
from sweeps.spec.resources import Caps

ROUNDING = 1 + 1e-9
"""Factor by which sums may exceed a cap, as they are rounded."""


@dataclass
class CapCheck:
    """Comparison of further cost with the caps on FLOPs, GPU-hours and dollars."""

    caps: Caps
    spent: Bill
    """Cost of all attempts so far."""
    ended: Bill
    """Cost of those that have ended, which nothing reduces."""
    committed: Bill
    """Cost spent and reserved."""
    may_free: bool = False
    """True if the last refusal is due to running attempts, which may need less than they have reserved."""
    added: bool = False
    """True if cost was added, which may turn out lower."""

    def refusal(self, cost: Bill) -> str | None:
        """Return the cap that a job of this cost would exceed; None if it fits."""
        if why := beyond_caps(self.caps, self.spent, self.committed + cost):
            self.may_free = self.added or not _exceeded(self.caps, self.ended + cost)
        return why

    def add(self, cost: Bill) -> None:
        """Commit the cost of a job that fits."""
        self.committed, self.added = self.committed + cost, True


def beyond_caps(caps: Caps, spent: Bill, total: Bill) -> str | None:
    """Return the cap that ``total`` exceeds, with what is spent of it; None if it exceeds none."""
    if not (name := _exceeded(caps, total)):
        return None
    so_far, cap, would = (getattr(each, name) for each in (spent, caps, total))
    return f"caps.{name}: {so_far:.3g} of {cap:.3g} spent, {would:.3g} would be"


def _exceeded(caps: Caps, total: Bill) -> str | None:
    for name in ("flops", "gpu_hours", "dollars"):
        cap = getattr(caps, name)
        if cap is not None and getattr(total, name) > cap * ROUNDING:
            return name
    return None
