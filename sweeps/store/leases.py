"""Who works on a step: numbered attempts, each claimed once, alive while it beats, fenced off by the next.

::

    store/<id>/attempts/0001.json        who claimed the first attempt; created at most once
    store/<id>/attempts/0001.beat.json   changes while its process lives, and says how far it has come
    store/<id>/attempts/0001.end.json    how it ended; written by its process, or by who knows that it is gone
    store/<id>/attempts/0001.log         what it printed
    store/<id>/attempts/cancel.json      a request to stop

The next number may be claimed once the last attempt has ended, its process is known to be gone, or its beat
has not changed for as long as its claim says, by the clock of whoever watches: two clocks are never compared.
Whoever was only asleep finds the higher number before it writes anything that counts, and stops.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeps.environment import LEASE_SECONDS
from sweeps.store.driver_watch import DriverWatch
from sweeps.store.outcomes import Ending, Stopped, ending_of, reason_of
from sweeps.store.store import Store

PATIENCE = LEASE_SECONDS
"""Seconds without a beat after which others may take a step over; every claim says its own."""
BEATS_LOCAL, BEATS_REMOTE = 20, 5
"""Beats in that time, on a disk and on an object store, where each costs money."""
FIRST_BEAT = 0.5
"""Seconds to the first beat; doubled each time, up to the usual time between two."""
LEAVING_SECONDS = 0.5
"""From a process's last words to its end, until whoever started it has told how long it lived."""
CANCEL = "cancel.json"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a step, as the store tells it."""

    number: int
    told: dict[str, Any]
    """What it told last: its claim, then its beats, then its end."""

    @property
    def ending(self) -> Ending | None:
        """How it ended; None while it has not, or could not say so."""
        return Ending(self.told["ending"]) if "ending" in self.told else None

    @property
    def job(self) -> str | None:
        """The job that it was claimed for, if a driver had it claimed."""
        return self.told.get("job")

    @property
    def unheard(self) -> float:
        """Seconds after its last words in which it may have gone on: until the next were due."""
        if self.ending:
            return float(self.told.get("unheard", 0.0))
        return float(self.told.get("due", self.told.get("patience", 0.0) / BEATS_LOCAL))

    @property
    def seconds(self) -> float:
        """Seconds that its process lived: as whoever started it has measured, or else at most."""
        told = self.told
        return float(told.get("lived", told.get("elapsed", 0.0) + self.unheard + told.get("leaving", 0.0)))

    @property
    def done(self) -> int:
        """Optimiser steps of the run that were taken, in earlier attempts too."""
        return int(self.told.get("steps_done", 0))


@dataclass(eq=False)
class Lease:
    """The right of this process to work on a step."""

    store: Store
    step: str
    number: int
    about: dict[str, Any] = field(default_factory=dict)
    """What it runs on."""
    progress: dict[str, Any] = field(default_factory=dict)
    """How far it has come; told with the next beat."""
    lost: Stopped | None = None
    """Why it has to stop, once the beats found out."""
    ended: bool = False
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._driver = DriverWatch.of(self.store, self.about)

    @classmethod
    def claim(
        cls, store: Store, step: str, number: int, *, begun: float | None = None, **about: Any
    ) -> Lease | None:
        """Claim attempt ``number``; None if somebody else was first. ``about`` is told with the claim.

        What it takes counts from ``begun`` on, by ``time.monotonic()``: its process ran before it claimed.
        """
        begun = begun or time.monotonic()
        claim = {"started": now(), "patience": PATIENCE, "due": FIRST_BEAT, **this_process(), **about}
        claim["elapsed"] = time.monotonic() - begun
        won = create(store, claim, *place(step, number))
        return cls(store, step, number, about, started=begun) if won else None

    def fence(self) -> None:
        """Make sure that nobody has taken the step over, before writing what others rely on.

        Raises:
            Stopped: if somebody has.
        """
        self._fence(self.store.names(self.step, "attempts"))

    def _fence(self, names: list[str]) -> None:
        if (other := latest(names)) > self.number:
            raise Stopped(Ending.HELD, f"attempt {other} has taken over from attempt {self.number}")

    def look(self) -> None:
        """Stop if the beats have found, or a signal has said, that this process should; costs nothing.

        Raises:
            Stopped: if so.
        """
        if self.lost:
            raise self.lost

    def beat(self, count: int, due: float = 0.0) -> None:
        """Say that this process lives and will again in ``due`` seconds; find out whether it should."""
        try:
            elapsed = time.monotonic() - self.started
            beat = {"beat": count, "elapsed": elapsed, "due": due, **self.progress}
            self.store.write(beat, *place(self.step, self.number, "beat"), durable=False)
            names = self.store.names(self.step, "attempts")
            self._fence(names)
            if CANCEL in names or self.store.read(CANCEL) is not None:
                raise Stopped(Ending.CANCELLED, "it was cancelled")
            if self._driver:
                self._driver.look(elapsed, due)
        except Stopped as stopped:
            self.lost = stopped
        except Exception:  # noqa: S110  (a store that is away for a moment; for longer, others take over)
            pass

    def conclude(self, error: BaseException | None) -> None:
        """End the attempt as done, or by ``error``."""
        if error is None:
            self.end(Ending.DONE)
        else:
            self.end(ending_of(error), reason_of(error))

    def end(self, ending: Ending, reason: str | None = None) -> None:
        """Record how the attempt ended, once."""
        if self.ended:
            return
        self.ended = True
        record = {"ending": ending, "reason": reason, "ended": now(), **self.about, **self.progress}
        with suppress(Exception):  # the store itself may be what failed
            record |= {"elapsed": time.monotonic() - self.started, "leaving": LEAVING_SECONDS}
            self.store.write(record, *place(self.step, self.number, "end"), durable=False)


@contextmanager
def leased(
    store: Store, steps: Iterable[str], numbers: Mapping[str, int] | None = None, **about: Any
) -> Iterator[dict[str, Lease]]:
    """Claim attempts at ``steps`` and keep them alive while the block runs.

    Which attempts is said by ``numbers``, if the caller has watched the steps, and else found out. Steps that
    somebody else works on are missing from what is given. Attempts that the block has not concluded end with
    it: by the exception that it raises, or as lost.
    """
    leases: dict[str, Lease] = {}
    for step in steps:
        number = numbers[step] if numbers else Watch(store).wait(step)
        if number and (lease := Lease.claim(store, step, number, **about)):
            leases[step] = lease
    try:
        with _beating(list(leases.values())), _heeding_signals(list(leases.values())):
            yield leases
    except BaseException as error:
        for lease in leases.values():
            lease.conclude(error)
        raise
    for lease in leases.values():
        lease.end(Ending.LOST)


@contextmanager
def _beating(leases: list[Lease]) -> Iterator[None]:
    over = threading.Event()

    def beat() -> None:
        longest = PATIENCE / (BEATS_LOCAL if leases[0].store.local else BEATS_REMOTE)
        count, wait = 0, min(FIRST_BEAT, longest)
        while not over.wait(wait):
            count, wait = count + 1, min(2 * wait, longest)
            for lease in leases:
                if not lease.ended:
                    lease.beat(count, wait)

    thread = threading.Thread(target=beat, name="beats", daemon=True)
    if leases:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if leases:
            thread.join()


@contextmanager
def _heeding_signals(leases: list[Lease]) -> Iterator[None]:
    """Let SIGTERM, which schedulers send before they take a machine away, stop the work at its next step."""

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


class Watch:
    """Judges from outside which attempts are still alive, by what changes while it watches."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seen: dict[str, tuple[tuple[int, bytes | None], float]] = {}
        """By step: the last attempt with its beat, and when this was first seen, by our clock."""
        self.changed: set[str] = set()
        """Steps that have been seen to beat."""

    def claimable(self, step: str) -> int | None:
        """The number of the attempt that may be claimed now; None while the last one may be alive."""
        names = self.store.names(step, "attempts")
        number = latest(names)
        if not number or _name(number, "end") in names:
            self.seen.pop(step, None)
            return number + 1
        claim = self.store.read(*place(step, number)) or {}
        asked = time.monotonic()  # not later: this process may sleep, or the store be slow, before it knows
        state = number, self.store.read_bytes(*place(step, number, "beat"))
        then, since = self.seen.get(step, (None, 0.0))
        if then != state:
            if then:
                self.changed.add(step)
            self.seen[step] = state, since = state, time.monotonic()
        if gone(claim) or asked - since > claim.get("patience", PATIENCE):
            return number + 1
        return None

    def wait(self, step: str) -> int | None:
        """Like :meth:`claimable`, but watch until that is certain; None if the last attempt is alive."""
        while not (number := self.claimable(step)):
            if step in self.changed:
                return None
            time.sleep(0.2)
        return number


def attempts(store: Store, step: str, names: Iterable[str] | None = None) -> list[Attempt]:
    """All attempts at a step, oldest first; ``names`` are its files under ``attempts``, if known."""
    names = list(store.names(step, "attempts") if names is None else names)
    files = store.read_all((step, "attempts", name) for name in parts(names))
    return assembled(step, names, files)


def parts(names: Iterable[str], known: Container[int] = ()) -> list[str]:
    """The files of ``attempts`` that tell of all attempts but those that are ``known``."""
    there = set(names)
    found = []
    for number in range(1, latest(there) + 1):
        if number not in known:
            end = _name(number, "end")
            asked = [end] if end in there else [_name(number), _name(number, "beat")]
            found += [name for name in asked if name in there]
    return found


def assembled(
    step: str,
    names: Iterable[str],
    files: Mapping[tuple[str, ...], dict[str, Any]],
    known: Mapping[int, Attempt] | None = None,
) -> list[Attempt]:
    """All attempts at a step, by the content of the files that :func:`parts` named."""
    found = []
    for number in range(1, latest(names) + 1):
        if known and number in known:
            found.append(known[number])
            continue
        told: dict[str, Any] = {}
        for part in ("", "beat", "end"):
            content = files.get(place(step, number, part), {})
            told = content if part == "end" and content else told | content
        found.append(Attempt(number, told))
    return found


def create(store: Store, record: dict[str, Any], *where: str) -> bool:
    """Create a file that is not there yet; False if another process was first.

    A network may lose the answer and the client ask again: then this very process was first.
    """
    record = {**record, "created_by": uuid.uuid4().hex}
    if store.put_new(record, *where, durable=False):
        return True
    return (store.read(*where) or {}).get("created_by") == record["created_by"]


def latest(names: Iterable[str]) -> int:
    """The highest number claimed among the files of ``attempts``; 0 if there is none."""
    return max(
        (int(name[:-5]) for name in names if name[:-5].isdigit() and name.endswith(".json")), default=0
    )


def place(step: str, number: int, part: str = "") -> tuple[str, str, str]:
    """Where in the store an attempt's claim, ``beat`` or ``end`` lies."""
    return step, "attempts", _name(number, part)


def log_place(step: str, number: int) -> tuple[str, str, str]:
    """Where in the store an attempt's log lies."""
    return step, "attempts", f"{number:04d}.log"


def end_name(number: int) -> str:
    """The file that says how an attempt ended, among those of ``attempts``."""
    return _name(number, "end")


def _name(number: int, part: str = "") -> str:
    return f"{number:04d}.{part}.json" if part else f"{number:04d}.json"


def now() -> str:
    """The time, for people."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def this_process() -> dict[str, Any]:
    """Names this process so that others on the same machine can tell when it is gone."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "since": _started(os.getpid()),
    }


def is_here(holder: dict[str, Any]) -> bool:
    """Whether a process is one of this machine, so that it can be seen from here."""
    return bool(holder.get("machine")) and holder["machine"] == _machine()


def gone(holder: dict[str, Any]) -> bool:
    """Whether a process is known to have ended; False where that cannot be known from here."""
    return is_here(holder) and _started(holder["pid"]) != holder["since"]


def _machine() -> str:
    """This boot of this machine, its space of process ids and its clock; empty if the kernel does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        spaces = [Path("/proc/self/ns", name) for name in ("pid", "time")]
        return "/".join([boot, *(str(space.readlink()) for space in spaces if space.is_symlink())])
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process began, in ticks since boot; None if it is no more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
