"""Heartbeats of the leases of one process, written by a thread while its work runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sweeps.store import clock
from sweeps.store.outcomes import Stopped
from sweeps.store.time_limit import TimeLimit, stopping_seconds

if TYPE_CHECKING:
    from sweeps.store.leases import Lease

BEATS_LOCAL, BEATS_REMOTE = 20, 5
"""Heartbeats in the time that a lease lasts, on a disk and on an object store, where each costs money."""
FIRST_BEAT = 0.5
"""Seconds to the first heartbeat; doubled each time, up to the usual interval."""


@contextmanager
def beating(leases: list[Lease], limit: TimeLimit | None, patience: float) -> Iterator[None]:
    """Write heartbeats of ``leases`` while the block runs, and keep the process to its time limit.

    Args:
        leases: leases of this process.
        limit: time limit of this process, if it has one.
        patience: seconds without a heartbeat after which a lease expires.
    """
    over = threading.Event()

    def beat() -> None:
        longest = patience / (BEATS_LOCAL if leases[0].store.local else BEATS_REMOTE)
        count, wait = 0, min(FIRST_BEAT, longest)
        while not over.wait(wait):
            count, wait = count + 1, min(2 * wait, longest)
            active = [lease for lease in leases if not lease.ended]
            beat_all(active, limit, count, wait, patience)

    thread = threading.Thread(target=beat, name="beats", daemon=True)
    if leases:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if leases:
            thread.join()


def beat_all(leases: list[Lease], limit: TimeLimit | None, count: int, due: float, patience: float) -> None:
    """Write one heartbeat of each lease, and keep to the time limit.

    Args:
        leases: leases of this process that have not ended.
        limit: time limit of this process, if it has one.
        count: number of the heartbeat.
        due: seconds until the next.
        patience: seconds without a heartbeat after which a lease expires.
    """
    if limit:
        _beat_within(limit, leases, count, due, patience)
    else:
        for lease in leases:
            lease.beat(count, due)


def _beat_within(limit: TimeLimit, leases: list[Lease], count: int, due: float, patience: float) -> None:
    """Write one heartbeat of each lease with the time limit, and stop the work if that is used up."""
    expires = clock.monotonic() + patience
    stopping = max((stopping_seconds(lease.progress) for lease in leases), default=0.0)
    with suppress(Exception):  # the store is unavailable; the limit stays
        limit.read_extension(due, stopping)
    written = [lease.beat(count, due) for lease in leases]
    if written and all(written):
        limit.enforce(expires)
    try:
        limit.check(due, stopping)
    except Stopped as stopped:
        for lease in leases:
            lease.lost = lease.lost or stopped
