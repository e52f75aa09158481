"""Time between two checkpoints, by what they cost and how often runs are interrupted."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress

from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.history import AttemptHistory
from sweeps.store.leases import Attempt
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store

SHORTEST = 15.0
"""Least seconds between two checkpoints."""
SHARE = 0.02
"""Largest share of the time that training stands still for checkpoints."""
PRIOR_SECONDS = 86_400.0
"""Seconds in which one interruption is assumed, beside those that are observed."""
STEPS_READ = 64
"""Steps of a store whose attempts are read to count interruptions."""
INTERRUPTIONS = {Ending.LOST, Ending.CRASHED, Ending.MEMORY}


def checkpoint_interval(
    blocking: float, writing: float = 0.0, *, failures: int = 0, seconds: float = 0.0
) -> float:
    """Return the seconds of training between the end of a checkpoint and the next.

    That is the optimum of Daly for a cost of ``blocking`` and a mean time between failures of
    ``(86,400 + seconds) / (1 + failures)``, unless 2 % of the time (49 times the cost), the time of a write
    beside training, or 15 s are longer.

    Args:
        blocking: seconds for which a checkpoint stops training.
        writing: seconds from the beginning of its write to the end, most of it beside training.
        failures: interruptions observed.
        seconds: time of all attempts in which they were.
    """
    between = (PRIOR_SECONDS + seconds) / (1 + failures)
    return max(SHORTEST, blocking * (1 / SHARE - 1), writing, optimal_interval(blocking, between))


def optimal_interval(cost: float, between_failures: float) -> float:
    r"""Return the time of work between two checkpoints that loses the least to checkpoints and failures.

    :math:`\sqrt{2 \delta M} (1 + \frac{1}{3} \sqrt{\delta / 2 M} + \frac{1}{9} \delta / 2 M) - \delta` for
    :math:`\delta < 2 M`, else :math:`M`, with the cost of a checkpoint :math:`\delta` and the mean time
    between failures :math:`M`. Source: Daly 2006, Eq. 37 (doi:10.1016/j.future.2004.11.016); its first
    factor is Young's of 1974.
    """
    if cost >= 2 * between_failures:
        return between_failures
    share = cost / (2 * between_failures)
    return math.sqrt(2 * cost * between_failures) * (1 + math.sqrt(share) / 3 + share / 9) - cost


def observed_failures(store: Store, step: str) -> tuple[int, float]:
    """Return interruptions and seconds of the attempts at ``step`` and at up to 63 others of the store.

    An attempt counts as interrupted if its process, node or memory failed, or if another took over.
    """
    others = [name for name in store.names() if "." not in name and name != step]
    chosen = [step, *others[: STEPS_READ - 1]]
    listed = {name: [f"attempts/{file}" for file in store.names(name, "attempts")] for name in chosen}
    histories = AttemptHistory(store, listed).read_unfinished().values()
    attempts = [each for history in histories for each in history]
    failures = sum(_interrupted(each, history[-1]) for history in histories for each in history)
    return failures, sum(each.seconds for each in attempts)


def _interrupted(attempt: Attempt, last: Attempt) -> bool:
    if attempt.ending is None:
        return attempt is not last
    return attempt.ending in INTERRUPTIONS


class CheckpointClock:
    """Clock that says when runs that train together are due to be saved."""

    def __init__(self, checkpoints: Sequence[Checkpoints], fixed: float | None) -> None:
        self.checkpoints, self.fixed = checkpoints, fixed
        self.seconds = SHORTEST if fixed is None else fixed
        """Seconds of training between two checkpoints."""
        self.saves = 0
        self._failures: tuple[int, float] | None = None
        self._since = time.monotonic()

    def due(self) -> bool:
        """Return True if it is time, and no checkpoint is being written unless the interval is fixed."""
        late = time.monotonic() - self._since >= self.seconds
        return late and (self.fixed is not None or not any(each.busy for each in self.checkpoints))

    def saved(self) -> None:
        """Set the interval by what the checkpoints have cost so far, and begin it."""
        self.saves += 1
        if self.fixed is None and self.checkpoints:
            self._failures = self._failures or self._read_failures()
            failures, seconds = self._failures
            blocking = sum(each.blocking_seconds for each in self.checkpoints) / self.saves
            writing = max(each.write_seconds for each in self.checkpoints)
            self.seconds = checkpoint_interval(blocking, writing, failures=failures, seconds=seconds)
        self._since = time.monotonic()

    def _read_failures(self) -> tuple[int, float]:
        first = self.checkpoints[0]
        with suppress(Exception):  # a damaged record or a lost connection must not end the training
            return observed_failures(first.store, first.step)
        return 0, 0.0
