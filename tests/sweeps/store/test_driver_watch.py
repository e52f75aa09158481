"""Workers under a cap end with what was reserved for them once their driver is suspended or gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.store import driver_watch
from sweeps.store.driver_watch import DRIVERS, DriverWatch
from sweeps.store.leases import Lease
from sweeps.store.outcomes import Ending, Stopped
from sweeps.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.create()
    return store


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time that the watch sees."""
    now = [0.0]
    monkeypatch.setattr(driver_watch.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, seconds)


def beat(store: Store, seconds: float, ended: str | None = None) -> None:
    store.write({"seconds": seconds, "ended": ended, "due": 2.0}, DRIVERS, "d.json")


def test_a_driver_that_beats_may_pass_what_it_reserved(store: Store, clock: Callable[[float], None]) -> None:
    watch = DriverWatch(store, "d.json", bound=10.0)
    for second in range(100):
        clock(float(second))
        beat(store, second)
        watch.look(float(second), due=1.0)


def test_a_silent_driver_s_worker_ends_with_its_reservation(
    store: Store, clock: Callable[[float], None]
) -> None:
    watch = DriverWatch(store, "d.json", bound=50.0)
    beat(store, 1.0)
    for second in range(51):
        clock(float(second))
        watch.look(float(second), due=1.0)
    clock(51.0)
    with pytest.raises(Stopped, match="is silent, and the 50 s reserved under the cap are used up") as end:
        watch.look(51.0, due=1.0)
    assert end.value.ending is Ending.LOST


def test_a_driver_that_falls_silent_later_is_noticed_in_seconds(
    store: Store, clock: Callable[[float], None]
) -> None:
    watch = DriverWatch(store, "d.json", bound=10.0)
    beat(store, 1.0)
    clock(100.0)
    watch.look(100.0, due=1.0)
    clock(103.0)
    watch.look(103.0, due=1.0)
    clock(104.0)
    with pytest.raises(Stopped, match="silent"):
        watch.look(104.0, due=1.0)


@pytest.mark.parametrize("ended", ["2026-11-30T00:00:00", None])
def test_a_driver_that_is_gone_is_not_waited_for(
    ended: str | None, store: Store, clock: Callable[[float], None]
) -> None:
    if ended:
        beat(store, 1.0, ended)
    watch = DriverWatch(store, "d.json", bound=10.0)
    clock(9.0)
    watch.look(9.0, due=1.0)
    clock(11.0)
    with pytest.raises(Stopped, match="its driver has exited"):
        watch.look(11.0, due=1.0)


def test_without_a_cap_nobody_is_watched(store: Store) -> None:
    assert DriverWatch.of(store, {"cpus": 1}) is None
    lease = Lease.claim(store, "a", 1, driver="d.json", bound=0.0)
    assert lease
    lease.started -= 1.0
    lease.beat(1)
    assert lease.lost
    assert lease.lost.ending is Ending.LOST
    free = Lease.claim(store, "b", 1)
    assert free
    free.beat(1)
    assert free.lost is None
