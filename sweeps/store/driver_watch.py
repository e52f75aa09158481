"""A worker's watch over the driver that started it: under a cap, nobody else stops what runs too long.

A driver that is killed takes its workers with it where the system can do that. One that is suspended, or cut
off from them, cannot stop them. So a job under a cap has a bound, the seconds that were reserved for it;
beyond that it goes on only while the record of its driver changes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeps.store.outcomes import Ending, Stopped
from sweeps.store.store import Store

DRIVERS = "drivers"
"""Directory of the records of drivers, which they rewrite while they live."""
MARGIN_SECONDS = 0.5
"""By which a record may be late, besides half as long again as it was due in."""
USUAL_DUE = 10.0
"""Seconds in which a record is taken to be due that was not read yet."""


@dataclass
class DriverWatch:
    """What one process knows of its driver."""

    store: Store
    driver: str
    """Name of the driver's record."""
    bound: float
    """Seconds that the process may take, whatever becomes of its driver."""
    seen: dict[str, Any] | None = None
    since: float = field(default_factory=time.monotonic)
    """When the record was first seen as it is, by ``time.monotonic()``."""

    @classmethod
    def of(cls, store: Store, about: Mapping[str, Any]) -> DriverWatch | None:
        """Return the watch over the driver that a claim names; None if it has no bound."""
        if "bound" not in about:
            return None
        return cls(store, about["driver"], about["bound"])

    def look(self, elapsed: float, due: float) -> None:
        """Read the driver's record once the bound is near; ``due`` is in how many seconds the next look is.

        Raises:
            Stopped: if the bound is passed and the driver is gone or silent.
        """
        if elapsed + self._patience + due < self.bound:
            return
        asked, record = time.monotonic(), self.store.read(DRIVERS, self.driver)
        if record != self.seen:
            self.seen, self.since = record, asked
        over = not record or bool(record["ended"])
        if elapsed > self.bound and (over or asked - self.since > self._patience):
            why = "is gone" if over else "has fallen silent"
            raise Stopped(
                Ending.LOST, f"its driver {why}, and the {self.bound:.3g} s reserved under the cap are over"
            )

    @property
    def _patience(self) -> float:
        return 1.5 * float((self.seen or {}).get("due", USUAL_DUE)) + MARGIN_SECONDS
