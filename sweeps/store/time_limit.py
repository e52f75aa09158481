"""Time limit of a job under a cap: the seconds that are reserved for its process, which it cannot exceed.

The limit is recorded in the store before the process spends it, with the claim and with each heartbeat. A
timer of the kernel kills the process at the limit, and also when its last heartbeat is older than its lease
lasts, whether it is computing, waiting for the store, or stopped. So an attempt whose end nobody could record
has lived at most until one of both. The process itself stops somewhat earlier, with a checkpoint.

The driver extends a limit with a new reservation, and tells the process so in its own record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeps.store import clock
from sweeps.store.kill_timer import KillTimer
from sweeps.store.outcomes import Ending, Stopped
from sweeps.store.store import Store

DRIVERS = "drivers"
"""Directory of the records of drivers, which they rewrite while they live."""
STOPPING_SECONDS = 2.0
"""Seconds in which a process stops with a checkpoint, unless its optimizer steps take longer."""
GRACE_SECONDS = 10.0
"""Seconds in which a process that was asked to stop may write a checkpoint."""
LOOKS_AHEAD = 10
"""Heartbeats before the limit at which the driver's record is read for an extension."""
EXIT_SECONDS = 0.1
"""Seconds from the kernel's signal until the parent has seen the exit, kept free before the limit."""
MARGIN_SECONDS = 0.5
"""Seconds by which a driver's record may be late, in addition to half of its interval."""
USUAL_DUE = 10.0
"""Assumed interval of a driver's record that says none, seconds."""


@dataclass
class TimeLimit:
    """Time limit of the job in this process."""

    store: Store
    driver: str
    """Name of the driver's record, in which extensions are granted."""
    job: str
    seconds: float
    """Seconds that the process may live, as far as it knows."""
    begun: float
    """Start of the process, by ``time.monotonic()``."""
    timer: KillTimer | None = None
    """Timer that enforces the limit; None in a process that must not be killed."""
    seen: dict[str, Any] | None = None
    """Last record of the driver."""
    since: float = field(default_factory=clock.monotonic)
    """Time at which that record was first seen, by ``time.monotonic()``."""

    def read_extension(self, due: float, stopping: float = STOPPING_SECONDS) -> None:
        """Read the driver's record if the limit is near, with the next look in ``due`` seconds.

        It is near some looks before the process has to stop, which takes ``stopping`` seconds.
        """
        if self._left > LOOKS_AHEAD * due + max(GRACE_SECONDS, stopping):
            return
        asked, record = clock.monotonic(), self.store.read(DRIVERS, self.driver)
        if record != self.seen:
            self.seen, self.since = record, asked
        self.seconds = max(self.seconds, ((record or {}).get("time_limits") or {}).get(self.job, 0.0))

    def enforce(self, expires: float) -> None:
        """Set the timer to the limit, or to the time at which the lease expires if that is earlier.

        The limit must have been recorded in the store.
        """
        if self.timer:
            self.timer.set(min(self.begun + self.seconds - EXIT_SECONDS, expires))

    def check(self, due: float, stopping: float = STOPPING_SECONDS) -> None:
        """Check that the time left suffices for the next ``due`` seconds, and for ``stopping`` after that.

        Raises:
            Stopped: if it does not.
        """
        if self._left < due + stopping:
            raise Stopped(
                Ending.LOST, f"the {self.seconds:.3g} s reserved under the cap are used up, and {self._why}"
            )

    @property
    def _left(self) -> float:
        return self.begun + self.seconds - clock.monotonic()

    @property
    def _why(self) -> str:
        """Reason why the limit was not extended."""
        if not self.seen or self.seen["ended"]:
            return "its driver has exited"
        if clock.monotonic() - self.since > 1.5 * float(self.seen.get("due", USUAL_DUE)) + MARGIN_SECONDS:
            return "its driver is silent"
        return "its driver has reserved no more"


def stopping_seconds(progress: Mapping[str, Any]) -> float:
    """Return the seconds in which a process stops when asked: after its next step, with a checkpoint.

    A process that runs a command waits for that, for the ``grace`` of its progress; one with a large state
    for the write of its checkpoint, as long as the last took.
    """
    if grace := float(progress.get("grace", 0.0)):
        return grace + STOPPING_SECONDS
    pace = float(progress.get("seconds", 0.0)) / max(1, int(progress.get("steps_done", 0)))
    writing = float(progress.get("write_seconds", 0.0))
    return min(GRACE_SECONDS, max(STOPPING_SECONDS, 2 * pace)) + writing
