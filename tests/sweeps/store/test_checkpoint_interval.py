"""Time between two checkpoints: by what they cost and how often runs are interrupted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from scipy.optimize import minimize_scalar

from sweeps.store.checkpoints import interval as module
from sweeps.store.checkpoints.checkpoints import Checkpoints
from sweeps.store.checkpoints.interval import (
    CheckpointClock,
    checkpoint_interval,
    observed_failures,
    optimal_interval,
)
from sweeps.store.leases import Lease
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store


@pytest.mark.parametrize(
    ("blocking", "writing", "failures", "seconds", "expected"),
    [
        (0.0, 0.0, 0, 0.0, 15.0),  # at least 15 s
        (0.001, 0.0, 0, 0.0, 15.0),  # where the optimum is 13
        (0.02, 0.0, 0, 0.0, 58.77442),  # the optimum for one failure a day: sqrt(2 * .02 * 86400)
        (0.02, 0.0, 9, 0.0, 18.57699),  # ten in that day
        (0.02, 0.0, 9, 9 * 86_400.0, 58.77442),  # ten in ten days
        (5.0, 30.0, 0, 0.0, 926.1857),
        (5.0, 30.0, 9, 0.0, 290.6149),
        (5.0, 30.0, 99, 0.0, 245.0),  # 2 % of the time: 49 times the cost
        (0.0001, 40.0, 99, 0.0, 40.0),  # not before the last write has ended
    ],
)
def test_intervals_by_cost(
    blocking: float, writing: float, failures: int, seconds: float, expected: float
) -> None:
    found = checkpoint_interval(blocking, writing, failures=failures, seconds=seconds)
    assert found == pytest.approx(expected, rel=1e-5)
    assert blocking / (blocking + found) <= 0.02 + 1e-12


@pytest.mark.parametrize("cost", [0.1, 5.0, 60.0])
@pytest.mark.parametrize("between", [600.0, 86_400.0])
def test_the_interval_loses_the_least(cost: float, between: float) -> None:
    """Against the expected time of work with failures at random (Daly 2006, Eq. 20), minimized numerically."""

    def time_per_work(interval: float) -> float:
        return between * math.expm1((interval + cost) / between) / interval

    best = minimize_scalar(time_per_work, bounds=(1e-3, 10 * between), method="bounded").x
    found = optimal_interval(cost, between)
    assert time_per_work(found) <= time_per_work(best) * 1.0005
    assert found == pytest.approx(best, rel=0.03)
    assert optimal_interval(2 * between, between) == between


def test_failures_are_those_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    endings = [Ending.LOST, Ending.CRASHED, Ending.FAILED, None, Ending.DONE]  # the fourth was taken over
    for number, ending in enumerate(endings, start=1):
        lease = Lease.claim(store, "a", number)
        assert lease
        if ending:
            lease.end(ending)
    living = Lease.claim(store, "b", 1)
    assert living
    failures, seconds = observed_failures(store, "b")
    assert failures == 3
    assert seconds > 0
    monkeypatch.setattr(module, "STEPS_READ", 1)
    assert observed_failures(store, "b")[0] == 0


def test_the_clock_goes_by_what_checkpoints_have_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "observed_failures", lambda *_: (9, 0.0))
    checkpoints = Checkpoints(Store(tmp_path), "run")
    clock = CheckpointClock([checkpoints], None)
    now = 14.9
    assert not clock.due()
    now = 15.0
    assert clock.due()
    checkpoints.blocking_seconds = 5.0
    clock.saved()
    assert clock.seconds == pytest.approx(290.6149, rel=1e-5)
    now = 15 + 290.0
    assert not clock.due()
    now += 1
    assert clock.due()
    monkeypatch.setattr(Checkpoints, "busy", True)
    assert not clock.due()
    assert CheckpointClock([checkpoints], 0.0).due()  # a fixed interval waits for nothing
    clock.saved()  # a second one that cost nothing: 2.5 s each
    assert clock.seconds == checkpoint_interval(2.5, failures=9)


def test_a_damaged_record_ends_no_training(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert Lease.claim(store, "run", 1)
    (tmp_path / "run" / "attempts" / "0001.json").write_text("{")
    checkpoints = Checkpoints(store, "run")
    checkpoints.save(1, {"w": torch.ones(1)})
    clock = CheckpointClock([checkpoints], None)
    clock.saved()
    assert 15 <= clock.seconds < 1000
