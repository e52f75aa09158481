"""Supervision of a worker's driver: under a cap, a worker stops by itself if its driver cannot stop it.

If a driver is killed, its workers are killed too where the system allows it. A driver that is suspended or
disconnected cannot stop them. So a job under a cap has a bound, the seconds reserved for it; beyond the bound
it continues only while the record of its driver changes.
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
"""Seconds by which a record may be late, in addition to half of its interval."""
USUAL_DUE = 10.0
"""Assumed interval of a record before it was first read, seconds."""


@dataclass
class DriverWatch:
    """Watch over the driver of one process."""

    store: Store
    driver: str
    """Name of the driver's record."""
    bound: float
    """Seconds that the process may run without its driver."""
    seen: dict[str, Any] | None = None
    since: float = field(default_factory=time.monotonic)
    """Time at which the current record was first seen, by ``time.monotonic()``."""

    @classmethod
    def of(cls, store: Store, about: Mapping[str, Any]) -> DriverWatch | None:
        """Return the watch over the driver that a claim names; None if it has no bound."""
        if "bound" not in about:
            return None
        return cls(store, about["driver"], about["bound"])

    def look(self, elapsed: float, due: float) -> None:
        """Read the driver's record if the bound is near.

        Args:
            elapsed: seconds that this process has run.
            due: seconds until the next look.

        Raises:
            Stopped: if the bound is exceeded and the driver has exited or is silent.
        """
        if elapsed + self._patience + due < self.bound:
            return
        asked, record = time.monotonic(), self.store.read(DRIVERS, self.driver)
        if record != self.seen:
            self.seen, self.since = record, asked
        over = not record or bool(record["ended"])
        if elapsed > self.bound and (over or asked - self.since > self._patience):
            why = "has exited" if over else "is silent"
            raise Stopped(
                Ending.LOST,
                f"its driver {why}, and the {self.bound:.3g} s reserved under the cap are used up",
            )

    @property
    def _patience(self) -> float:
        return 1.5 * float((self.seen or {}).get("due", USUAL_DUE)) + MARGIN_SECONDS
