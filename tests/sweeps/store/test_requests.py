"""Concurrent requests to a store: order, limit, and retries."""

from __future__ import annotations

import errno
import threading
from collections import Counter

import pytest

from sweeps.store import clock, requests
from sweeps.store.history import AttemptHistory
from sweeps.store.leases import Lease, LeaseWatch
from sweeps.store.outcomes import Ending
from sweeps.store.requests import CONCURRENT, LEAST_RETRIES, request_all
from sweeps.store.store import Store


class Waits:
    """Clock that notes how long it was asked to wait."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    def monotonic(self) -> float:
        return sum(self.waited)

    def time(self) -> float:
        return 1.9e9 + self.monotonic()

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


def throttled() -> OSError:
    return OSError(errno.EBUSY, "SlowDown (503)")


def test_answers_are_in_order_and_at_most_so_many_at_a_time() -> None:
    meeting, at_once, most = threading.Barrier(CONCURRENT, timeout=60), threading.Semaphore(CONCURRENT), []

    def ask(number: int) -> int:
        assert at_once.acquire(blocking=False)
        if number < CONCURRENT:
            meeting.wait()  # all of the first come together, or this breaks
        most.append(number)
        at_once.release()
        return number * number

    assert request_all(ask, range(3 * CONCURRENT)) == [number * number for number in range(3 * CONCURRENT)]
    assert sorted(most) == list(range(3 * CONCURRENT))


def test_what_a_throttling_store_refuses_is_asked_again_later_and_not_for_ever(waits: Waits) -> None:
    asked: Counter[int] = Counter()

    def seldom(number: int) -> int:
        asked[number] += 1
        if number % 100 == 7 and asked[number] < 3:
            raise throttled()
        return number

    with clock.replaced_by(waits):
        assert request_all(seldom, range(500)) == list(range(500))
    assert waits.waited == [requests.FIRST_WAIT, 2 * requests.FIRST_WAIT]
    assert sum(asked.values()) == 500 + 2 * 5

    def always(number: int) -> int:
        asked[number] += 1
        raise throttled()

    asked.clear()
    with clock.replaced_by(waits), pytest.raises(OSError, match="SlowDown"):
        request_all(always, range(LEAST_RETRIES + 1))
    assert sum(asked.values()) == LEAST_RETRIES + 1  # more retries than the budget has

    waits.waited.clear()
    with clock.replaced_by(waits), pytest.raises(OSError, match="SlowDown"):
        request_all(always, [1])
    assert sum(waits.waited) < 10.0  # its caller is patient, and does not sleep through the store's return


def test_an_error_that_stays_is_raised_at_once(waits: Waits) -> None:
    with clock.replaced_by(waits), pytest.raises(PermissionError):
        request_all(lambda number: (_ for _ in ()).throw(PermissionError(str(number))), [1, 2])
    assert waits.waited == []


class Remote(Store):
    """Store on a disk that counts requests as one in a bucket does."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.asked: Counter[str] = Counter()

    def names(self, *place: str) -> list[str]:
        self.asked["list"] += 1
        return super().names(*place)

    def read_bytes(self, *place: str, begin: int | None = None, end: int | None = None) -> bytes | None:
        self.asked["get"] += 1
        return super().read_bytes(*place, begin=begin, end=end)


def test_a_look_at_a_living_attempt_is_one_request(tmp_path: object) -> None:
    """Its heartbeat alone is read as long as that changes; its claim is read once, its end found one look later."""
    there = Store(str(tmp_path))
    there.create()
    leases = [Lease.claim(there, step, 1, machine="elsewhere") for step in ("a", "b")]
    store = Remote(str(tmp_path))
    store._ask_all = lambda ask, places: {place: ask(*place) for place in places}  # type: ignore[method-assign]
    store.local = False
    history, watch = AttemptHistory(store), LeaseWatch(store)
    asked = []
    for look in range(4):
        for lease in leases:
            assert lease
            if look < 2 or lease.step == "b":
                lease.beat(look, due=9.0)
        if look == 2 and leases[0]:
            leases[0].end(Ending.DONE)
        store.asked.clear()
        history.refresh(["a", "b"], lazily=True)
        asked.append(dict(store.asked))
        expected = {"a": None if look < 2 else 2, "b": None}
        assert {step: watch.claimable(step, history) for step in "ab"} == expected
        assert store.asked == asked[-1]  # what was read is not read again
    assert asked == [
        {"list": 2, "get": 4},
        {"get": 2},
        {"get": 3, "list": 1},
        {"get": 1, "list": 1},  # an ended attempt is only listed
    ]
    assert [each.ending for each in history.of("a")] == [Ending.DONE]
    assert history.of("b")[0].told["beat"] == 3
