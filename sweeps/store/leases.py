"""Leases on steps: numbered attempts, each claimed once, kept alive by a heartbeat, fenced by the next.

::

    store/<id>/attempts/0001.json        claim of the first attempt; created at most once
    store/<id>/attempts/0001.beat.json   heartbeat with progress, rewritten while its process lives
    store/<id>/attempts/0001.end.json    outcome; written by its process, or by one that knows it has exited
    store/<id>/attempts/0001.log         output
    store/<id>/attempts/cancel.json      request to stop

The next number may be claimed once the last attempt has ended, its process is known to have exited, or its
heartbeat has not changed for the timeout in its claim, by the clock of the observer: clocks of two machines
are never compared. A process that was only suspended finds the higher number before it commits anything, and
stops.
"""

from __future__ import annotations

import math
import signal
import threading
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweeps.environment import LEASE_SECONDS
from sweeps.store import clock
from sweeps.store.clock import timestamp
from sweeps.store.heartbeats import BEATS_LOCAL, FIRST_BEAT, beating
from sweeps.store.outcomes import Ending, Stopped, ending_of, error_line
from sweeps.store.processes import has_exited, this_process
from sweeps.store.store import Store
from sweeps.store.time_limit import TimeLimit

if TYPE_CHECKING:
    from sweeps.store.history import AttemptHistory

LEASE_TIMEOUT = LEASE_SECONDS
"""Seconds without a heartbeat after which others may take over a step; every claim records its own."""
LEAVING_SECONDS = 0.5
"""Assumed seconds between a process's last record and its exit, until its parent records its lifetime."""
CANCEL = "cancel.json"


@dataclass(frozen=True, slots=True)
class Attempt:
    """Attempt at a step, as recorded in the store."""

    number: int
    told: dict[str, Any]
    """Merged records: its claim, heartbeat and end."""

    @property
    def ending(self) -> Ending | None:
        """Ending; None if it has not ended, or could not record it."""
        return Ending(self.told["ending"]) if "ending" in self.told else None

    @property
    def job(self) -> str | None:
        """Job that it was claimed for, if a driver started it."""
        return self.told.get("job")

    @property
    def unheard(self) -> float:
        """Seconds after its last record in which it may have continued.

        Until the next was due; under a time limit, until the kernel has killed it.
        """
        if self.ending:
            return float(self.told.get("unheard", 0.0))
        patience = float(self.told.get("patience", 0.0))
        if "time_limit" in self.told:
            left = float(self.told["time_limit"]) - self.told.get("elapsed", 0.0)
            return max(0.0, min(patience, left))
        return float(self.told.get("due", patience / BEATS_LOCAL))

    @property
    def seconds(self) -> float:
        """Lifetime of its process in seconds: measured by its parent, or else an upper bound."""
        told = self.told
        return float(told.get("lived", told.get("elapsed", 0.0) + self.unheard + told.get("leaving", 0.0)))

    @property
    def settled(self) -> bool:
        """True if it has ended and its seconds are final; under a time limit, its parent measures them."""
        return bool(self.ending) and ("lived" in self.told or "time_limit" not in self.told)

    @property
    def done(self) -> int:
        """Optimizer steps of the run so far, earlier attempts included."""
        return int(self.told.get("steps_done", 0))


@dataclass(eq=False)
class Lease:
    """Exclusive right of this process to work on a step."""

    store: Store
    step: str
    number: int
    about: dict[str, Any] = field(default_factory=dict)
    """Resources it runs on, recorded with the claim and the end."""
    progress: dict[str, Any] = field(default_factory=dict)
    """Progress, recorded with the next heartbeat."""
    lost: Stopped | None = None
    """Reason to stop, found by the heartbeat."""
    ended: bool = False
    started: float = field(default_factory=clock.monotonic)
    limit: TimeLimit | None = None
    """Time limit of its process, recorded with the claim and each heartbeat."""
    expires: float = math.inf
    """Time from which others may take over if no heartbeat is written before, by ``time.monotonic()``."""

    @classmethod
    def claim(
        cls,
        store: Store,
        step: str,
        number: int,
        *,
        begun: float | None = None,
        limit: TimeLimit | None = None,
        **about: Any,
    ) -> Lease | None:
        """Claim attempt ``number``; None if another process was first. ``about`` is recorded with the claim.

        Its time counts from ``begun``, by ``time.monotonic()``, as its process started before the claim.
        """
        begun = begun or clock.monotonic()
        claim = {
            "started": timestamp(),
            "patience": LEASE_TIMEOUT,
            "due": FIRST_BEAT,
            **this_process(),
            **about,
            **_limit_record(limit),
        }
        claim["elapsed"] = clock.monotonic() - begun
        expires = clock.monotonic() + LEASE_TIMEOUT
        won = create_once(store, claim, *attempt_path(step, number))
        return cls(store, step, number, about, started=begun, limit=limit, expires=expires) if won else None

    def fence(self) -> None:
        """Check that no other process has taken over the step, before committing anything.

        Raises:
            Stopped: if one has.
        """
        self._fence(self.store.names(self.step, "attempts"))

    def _fence(self, names: list[str]) -> None:
        if (other := latest_number(names)) > self.number:
            raise Stopped(Ending.HELD, f"attempt {other} has taken over from attempt {self.number}")

    def look(self) -> None:
        """Stop if the heartbeat or a signal has asked this process to; reads no file.

        Raises:
            Stopped: if so.
        """
        if self.lost:
            raise self.lost

    def beat(self, count: int, due: float = 0.0) -> bool:
        """Write a heartbeat, with the next due in ``due`` seconds, and check for reasons to stop.

        Returns:
            True if the heartbeat was written.
        """
        written, expires = False, clock.monotonic() + LEASE_TIMEOUT
        try:
            elapsed = clock.monotonic() - self.started
            beat = {"beat": count, "elapsed": elapsed, "due": due, **self.progress}
            beat |= _limit_record(self.limit)
            self.store.write(beat, *attempt_path(self.step, self.number, "beat"), durable=False)
            written, self.expires = True, expires
            names = self.store.names(self.step, "attempts")
            self._fence(names)
            if CANCEL in names or self.store.read(CANCEL) is not None:
                raise Stopped(Ending.CANCELLED, "it was cancelled")
        except Stopped as stopped:
            self.lost = stopped
        except Exception:  # noqa: S110  (the store is unavailable; if it stays so, others take over)
            pass
        return written

    def conclude(self, error: BaseException | None) -> None:
        """Record the end of the attempt: done, or failed by ``error``."""
        if error is None:
            self.end(Ending.DONE)
        else:
            self.end(ending_of(error), error_line(error))

    def end(self, ending: Ending, reason: str | None = None) -> None:
        """Record the ending of the attempt, once."""
        if self.ended:
            return
        self.ended = True
        record = {"ending": ending, "reason": reason, "ended": timestamp(), **self.about, **self.progress}
        record |= _limit_record(self.limit) | {"patience": LEASE_TIMEOUT}
        with suppress(Exception):  # the store itself may be what failed
            record |= {"elapsed": clock.monotonic() - self.started, "leaving": LEAVING_SECONDS}
            self.store.write(record, *attempt_path(self.step, self.number, "end"), durable=False)


@contextmanager
def hold_leases(
    store: Store,
    steps: Iterable[str],
    numbers: Mapping[str, int] | None = None,
    *,
    limit: TimeLimit | None = None,
    **about: Any,
) -> Iterator[dict[str, Lease]]:
    """Claim attempts at ``steps`` and keep them alive while the block runs.

    Yields the leases by step, without steps that another process works on. Attempts that the block has not
    concluded end with it: by the exception that it raises, or as lost.

    Args:
        store: the store.
        steps: ids of the steps.
        numbers: numbers of the attempts by step, if the caller has determined them.
        limit: time limit of this process, if it has one.
        about: recorded with the claims.
    """
    leases: dict[str, Lease] = {}
    expires = clock.monotonic() + LEASE_TIMEOUT
    for step in steps:
        number = numbers[step] if numbers else LeaseWatch(store).wait(step)
        if number and (lease := Lease.claim(store, step, number, limit=limit, **about)):
            leases[step] = lease
    if limit:
        limit.enforce(expires)
    try:
        with (
            beating(list(leases.values()), limit, LEASE_TIMEOUT),
            _stopping_on_sigterm(list(leases.values())),
        ):
            yield leases
    except BaseException as error:
        for lease in leases.values():
            lease.conclude(error)
        raise
    for lease in leases.values():
        lease.end(Ending.LOST)


def _limit_record(limit: TimeLimit | None) -> dict[str, Any]:
    return {"time_limit": limit.seconds} if limit else {}


@contextmanager
def _stopping_on_sigterm(leases: list[Lease]) -> Iterator[None]:
    """Stop the work at its next step on SIGTERM, which schedulers send before preemption."""

    def stop(number: int, _: object) -> None:
        for lease in leases:
            lease.lost = Stopped(Ending.LOST, f"its process was stopped by {signal.Signals(number).name}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class LeaseWatch:
    """Observer that determines which attempts are alive, by changes of their heartbeats."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seen: dict[str, tuple[tuple[int, bytes | None], float]] = {}
        """Last attempt, by step, with its heartbeat, and when it was first seen, by this clock."""
        self.changed: set[str] = set()
        """Steps whose heartbeat was seen to change."""

    def claimable(self, step: str, history: AttemptHistory | None = None) -> int | None:
        """Return the number of the attempt that may be claimed now; None if the last one may be alive.

        With a ``history``, its files are those of the time when that was refreshed.
        """
        store = history or self.store
        names = store.names(step, "attempts")
        number = latest_number(names)
        if not number or _name(number, "end") in names:
            self.seen.pop(step, None)
            return number + 1
        claim = store.read(*attempt_path(step, number)) or {}
        asked = clock.monotonic()  # before reading, as this process may be suspended, or the store slow
        asked = history.asked.get(step, asked) if history else asked
        state = number, store.read_bytes(*attempt_path(step, number, "beat"))
        then, since = self.seen.get(step, (None, 0.0))
        if then != state:
            if then:
                self.changed.add(step)
            self.seen[step] = state, since = state, clock.monotonic()
        if has_exited(claim) or asked - since > claim.get("patience", LEASE_TIMEOUT):
            return number + 1
        return None

    def discount(self, seconds: float) -> None:
        """Do not count the last ``seconds`` as silence, as the store did not answer, to holders neither."""
        self.seen = {step: (state, since + seconds) for step, (state, since) in self.seen.items()}

    def wait(self, step: str) -> int | None:
        """Wait until :meth:`claimable` is certain; None if the last attempt is alive."""
        while not (number := self.claimable(step)):
            if step in self.changed:
                return None
            clock.sleep(0.2)
        return number


def attempts(store: Store, step: str, names: Iterable[str] | None = None) -> list[Attempt]:
    """Return all attempts at a step, oldest first; ``names`` are its files in ``attempts``, if known."""
    names = list(store.names(step, "attempts") if names is None else names)
    files = store.read_all((step, "attempts", name) for name in attempt_files(names))
    return assemble_attempts(step, names, files)


def attempts_all(store: Store, names: Mapping[str, Iterable[str]]) -> dict[str, list[Attempt]]:
    """Return all attempts at many steps, oldest first; ``names`` are the files in ``attempts`` by step."""
    places = [(step, "attempts", name) for step, own in names.items() for name in attempt_files(own)]
    files = store.read_all(places)
    return {step: assemble_attempts(step, own, files) for step, own in names.items()}


def attempt_files(names: Iterable[str], known: Container[int] = ()) -> list[str]:
    """Return the files of ``attempts`` with the records of all attempts that are not ``known``."""
    there = set(names)
    found = []
    for number in range(1, latest_number(there) + 1):
        if number not in known:
            end = _name(number, "end")
            asked = [end] if end in there else [_name(number), _name(number, "beat")]
            found += [name for name in asked if name in there]
    return found


def assemble_attempts(
    step: str,
    names: Iterable[str],
    files: Mapping[tuple[str, ...], dict[str, Any]],
    known: Mapping[int, Attempt] | None = None,
) -> list[Attempt]:
    """Return all attempts at a step, from the content of the files of :func:`attempt_files`."""
    found = []
    for number in range(1, latest_number(names) + 1):
        if known and number in known:
            found.append(known[number])
            continue
        told: dict[str, Any] = {}
        for part in ("", "beat", "end"):
            content = files.get(attempt_path(step, number, part), {})
            told = content if part == "end" and content else told | content
        found.append(Attempt(number, told))
    return found


def create_once(store: Store, record: dict[str, Any], *where: str) -> bool:
    """Create a file that does not exist; False if another process was first.

    If the network loses the answer and the client retries, this process itself may have been first.
    """
    record = {**record, "created_by": uuid.uuid4().hex}
    if store.put_new(record, *where, durable=False):
        return True
    return (store.read(*where) or {}).get("created_by") == record["created_by"]


def latest_number(names: Iterable[str]) -> int:
    """Return the highest number among the files of ``attempts``; 0 if there is none."""
    return max(
        (int(name[:-5]) for name in names if name[:-5].isdigit() and name.endswith(".json")), default=0
    )


def attempt_path(step: str, number: int, part: str = "") -> tuple[str, str, str]:
    """Return the path in the store of an attempt's claim, ``beat`` or ``end``."""
    return step, "attempts", _name(number, part)


def log_path(step: str, number: int) -> tuple[str, str, str]:
    """Return the path in the store of an attempt's log."""
    return step, "attempts", f"{number:04d}.log"


def end_name(number: int) -> str:
    """Return the name of the file with the ending of an attempt."""
    return _name(number, "end")


def _name(number: int, part: str = "") -> str:
    return f"{number:04d}.{part}.json" if part else f"{number:04d}.json"
