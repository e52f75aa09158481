"""A process under a cap cannot live longer than what is recorded in the store, whatever it is doing."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.store import leases, time_limit
from sweeps.store.heartbeats import _beat_within
from sweeps.store.leases import Attempt, Lease, attempts, hold_leases
from sweeps.store.outcomes import Ending, Stopped
from sweeps.store.store import Store
from sweeps.store.time_limit import DRIVERS, STOPPING_SECONDS, TimeLimit, stopping_seconds


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.create()
    return store


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time that the limit sees."""
    now = [0.0]
    monkeypatch.setattr(time_limit.clock, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, seconds)


class Timer:
    """Remembers when it would kill this process."""

    def __init__(self) -> None:
        self.at = math.inf

    def set(self, at: float) -> None:
        self.at = at


def limit_of(store: Store, seconds: float, begun: float = 0.0) -> tuple[TimeLimit, Timer]:
    timer = Timer()
    return TimeLimit(store, "d.json", "job", seconds, begun, timer), timer  # type: ignore[arg-type]


def drive(store: Store, ended: str | None = None, seconds: float = 0.0, **limits: float) -> None:
    record = {"seconds": seconds, "ended": ended, "due": 2.0, "time_limits": limits}
    store.write(record, DRIVERS, "d.json")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends stopped processes")
@pytest.mark.parametrize(
    "does", ["while True: pass", "os.kill(os.getpid(), signal.SIGSTOP)", "time.sleep(60)"]
)
def test_the_kernel_ends_a_process_at_its_limit_whatever_it_does(does: str) -> None:
    code = (
        "import os, signal, sys, time\n"
        "from sweeps.store.kill_timer import KillTimer\n"
        "timer = KillTimer()\n"
        "timer.set(time.monotonic() + 60.0)\n"
        "timer.set(at := time.monotonic() + 0.5)\n"
        f"print(at, flush=True)\n{does}\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        at = float(process.stdout.readline())
        assert process.wait(30) == -9
        assert at <= time.monotonic() < at + 10.0


def test_a_limit_is_recorded_before_it_is_spent(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer is set to an extension only once a heartbeat with it is in the store."""
    begun = time.monotonic()
    limit, timer = limit_of(store, 5.0, begun)
    lease = Lease.claim(store, "a", 1, begun=begun, limit=limit)
    assert lease
    assert attempts(store, "a")[0].told["time_limit"] == 5.0
    drive(store, job=9.0, another=100.0)
    with monkeypatch.context() as away:
        away.setattr(store, "write", lambda *_, **__: (_ for _ in ()).throw(TimeoutError))
        _beat_within(limit, [lease], 1, 0.1, 45.0)
    assert timer.at == math.inf  # nothing is written, so nothing is extended
    _beat_within(limit, [lease], 2, 0.1, 45.0)
    assert attempts(store, "a")[0].told["time_limit"] == 9.0
    assert begun + 8.5 < timer.at <= begun + 9.0
    _beat_within(limit, [lease], 3, 0.1, 1.0)
    assert timer.at < begun + 3.0  # the lease expires earlier, and others may take over then
    assert lease.lost is None
    drive(store, job=7.0)
    _beat_within(limit, [lease], 4, 0.1, 45.0)
    assert limit.seconds == 9.0  # what was granted stays granted


def test_a_claim_sets_the_timer_to_its_lease(store: Store) -> None:
    limit, timer = limit_of(store, 1e6, time.monotonic())
    with hold_leases(store, ["a"], {"a": 1}, limit=limit):
        assert timer.at == pytest.approx(time.monotonic() + leases.LEASE_TIMEOUT, abs=5.0)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({"patience": 6.0, "time_limit": 100.0, "elapsed": 10.0, "due": 0.3}, 16.0),
        ({"patience": 6.0, "time_limit": 12.0, "elapsed": 10.0, "due": 0.3}, 12.0),
        ({"patience": 6.0, "elapsed": 10.0, "due": 0.3}, 10.3),
        ({"time_limit": 12.0, "elapsed": 10.0, "ending": "lost", "leaving": 0.5}, 10.5),
        ({"time_limit": 12.0, "elapsed": 10.0, "ending": "lost", "leaving": 0.5, "lived": 10.1}, 10.1),
    ],
)
def test_an_attempt_counts_as_long_as_it_can_have_lived(told: dict[str, Any], seconds: float) -> None:
    attempt = Attempt(1, told)
    assert attempt.seconds == pytest.approx(seconds)
    assert attempt.settled == ("lived" in told)


def test_a_process_stops_before_its_limit_unless_that_is_extended(
    store: Store, clock: Callable[[float], None]
) -> None:
    limit, _ = limit_of(store, 50.0)
    drive(store)
    for second in range(48):
        clock(float(second))
        drive(store, seconds=float(second))
        limit.read_extension(due=1.0)
        limit.check(due=0.5)
    with pytest.raises(
        Stopped, match="50 s reserved under the cap are used up, and its driver has reserved no"
    ):
        limit.check(due=1.5)
    drive(store, job=60.0)
    limit.read_extension(due=1.0)
    limit.check(due=1.0)
    clock(60.0 - STOPPING_SECONDS - 4.0)
    limit.check(due=1.0)
    with pytest.raises(Stopped):
        limit.check(due=1.0, stopping=9.0)  # its optimizer steps are long


def test_the_store_is_not_read_while_the_limit_is_far(store: Store, clock: Callable[[float], None]) -> None:
    limit, _ = limit_of(store, 1000.0)
    drive(store, job=2000.0)
    limit.read_extension(due=3.0)
    assert limit.seconds == 1000.0
    clock(961.0)
    limit.read_extension(due=3.0)
    assert limit.seconds == 2000.0


def test_a_process_with_a_large_checkpoint_reads_and_stops_earlier(
    store: Store, clock: Callable[[float], None]
) -> None:
    stopping = stopping_seconds({"seconds": 10.0, "steps_done": 100, "write_seconds": 60.0})
    assert stopping == STOPPING_SECONDS + 60.0
    limit, _ = limit_of(store, 1000.0)
    drive(store, job=2000.0)
    clock(1000.0 - stopping - 20.0)
    limit.check(due=3.0, stopping=stopping)
    limit.read_extension(due=3.0, stopping=stopping)
    assert limit.seconds == 2000.0


def test_a_silent_driver_is_named(store: Store, clock: Callable[[float], None]) -> None:
    limit, _ = limit_of(store, 10.0)
    drive(store)
    limit.read_extension(due=1.0)
    clock(9.0)
    limit.read_extension(due=1.0)
    with pytest.raises(Stopped, match="used up, and its driver is silent") as stopped:
        limit.check(due=1.0)
    assert stopped.value.ending is Ending.LOST


@pytest.mark.parametrize("ended", ["2026-11-30T00:00:00", None])
def test_a_driver_that_is_gone_is_named(
    ended: str | None, store: Store, clock: Callable[[float], None]
) -> None:
    limit, _ = limit_of(store, 10.0)
    if ended:
        drive(store, ended)
    clock(9.0)
    limit.read_extension(due=1.0)
    with pytest.raises(Stopped, match="its driver has exited"):
        limit.check(due=1.0)


def test_all_work_of_a_process_stops_at_its_limit(store: Store) -> None:
    limit, _ = limit_of(store, 1.0, time.monotonic())
    held = [lease for step in "ab" if (lease := Lease.claim(store, step, 1, limit=limit))]
    _beat_within(limit, held, 1, 0.1, 45.0)
    assert [lease.lost and lease.lost.ending for lease in held] == [Ending.LOST, Ending.LOST]
    free = Lease.claim(store, "c", 1)
    assert free
    assert free.beat(1)
    assert free.lost is None
    assert "time_limit" not in attempts(store, "c")[0].told
