"""Patience of a driver with a store that fails for a while, as when it throttles."""

from __future__ import annotations

from sweeps.store import clock
from sweeps.store.outcomes import backoff_seconds, error_line, is_transient

STORE_PATIENCE = 7200.0
"""Seconds for which the store may fail without a pause before the driver gives up."""


class StorePatience:
    """Failures of the store in a row; endings missed meanwhile are found in it once it answers again."""

    def __init__(self) -> None:
        self.failures, self.since = 0, 0.0

    def renew(self) -> None:
        """Note that the store has answered."""
        self.failures = 0

    def wait(self, error: Exception) -> str | None:
        """Wait before the store is asked again; return what to say of it, at the first failure.

        Raises:
            Exception: ``error``, if it is none of the store, or if the store has failed for too long.
        """
        now = clock.monotonic()
        self.since = self.since if self.failures else now
        if not is_transient(error) or now - self.since > STORE_PATIENCE:
            raise error
        self.failures += 1
        clock.sleep(backoff_seconds(self.failures))
        first = self.failures == 1
        return f"the store does not answer: {error_line(error)}; it is asked again" if first else None
