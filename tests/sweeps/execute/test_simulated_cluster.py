"""The simulated cluster in small: the real scheduler, leases and budget over faults, in virtual time."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from simulated_cluster import scenarios
from simulated_cluster.bucket import BucketModel
from simulated_cluster.scenarios import GANGS, HOUR, SCENARIOS, Faults, Scenario, gangs, nodes_of
from simulated_cluster.simulation import Report, Simulation
from simulated_cluster.virtual_time import VirtualClock

from sweeps.execute.scheduler import LOOK_REMOTE
from sweeps.spec.resources import Caps

MINUTES = 60.0


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of one to twenty minutes."""
    monkeypatch.setattr(scenarios, "LONGEST", 20 * MINUTES)


def simulate(scenario: Scenario) -> Report:
    report = Simulation(scenario).run()
    assert report.lost == report.doubled == 0, report
    assert report.longest_look <= LOOK_REMOTE, report
    return report


def small(**fields: object) -> Scenario:
    steps = scenarios.teachers_and_students(120, 6)
    return replace(Scenario("small", nodes_of(12), steps), **fields)  # type: ignore[arg-type]


def test_threads_take_turns_in_the_order_of_virtual_time() -> None:
    clock, told = VirtualClock(), []

    def work(name: str, pause: float) -> None:
        for _ in range(3):
            clock.sleep(pause)
            told.append((name, clock.now))

    first = clock.start(0.0, lambda: work("slow", 3.0))
    clock.start(0.5, lambda: work("fast", 1.0))
    clock.after(2.0, lambda: told.append(("event", clock.now)))
    clock.after(7.0, lambda: clock.killed.add(first))
    clock.run()
    expected = [("fast", 1.5), ("event", 2.0), ("fast", 2.5), ("slow", 3.0), ("fast", 3.5), ("slow", 6.0)]
    assert told == expected  # the slow one is killed in its last sleep
    assert threading.active_count() < 50


@pytest.mark.usefixtures("short")
def test_without_faults_a_sweep_takes_what_list_scheduling_does() -> None:
    report = simulate(small())
    assert report.done == 120
    assert report.attempts == 120
    assert report.over_list_scheduling < 1.08  # starting a worker takes 8 s of steps of six minutes
    assert report.utilization > 0.6


@pytest.mark.usefixtures("short")
def test_gangs_and_students_share_nodes_without_waiting_for_ever() -> None:
    report = simulate(Scenario("gangs", nodes_of(10, gpus=8), gangs(5, 20), rules=GANGS))
    assert report.done == 5 * 41
    assert report.over_list_scheduling < 1.15


@pytest.mark.usefixtures("short")
def test_drivers_side_by_side_keep_to_the_cap_through_all_faults() -> None:
    """Preemption, the loss of a zone and of a driver, a partition, a slow bucket with failures and lag."""
    faults = Faults(
        preemptions_per_hour=1.0,
        boot_seconds=60.0,
        zone_lost_at=10 * MINUTES,
        driver_lost_at=15 * MINUTES,
        cut_off=(25 * MINUTES, 29 * MINUTES),
    )
    bucket = BucketModel(latency=0.1, errors=0.01, listing_lag=2.0)
    rough = small(drivers=3, faults=faults, bucket=bucket)
    whole = simulate(rough)
    assert whole.done == 120
    assert whole.nodes_lost > 8
    cap = 0.5 * whole.dollars
    capped = simulate(replace(rough, caps=Caps(dollars=cap)))
    assert 0.9 * cap < capped.dollars <= cap
    assert any("caps.dollars" in why for why in capped.halted)


@pytest.mark.usefixtures("short")
def test_an_hour_of_throttling_is_waited_for() -> None:
    report = simulate(small(bucket=BucketModel(outages=((600.0, 600.0 + HOUR),))))
    assert report.done == 120


def test_the_shipped_scenarios_are_those_of_the_documentation() -> None:
    assert set(SCENARIOS) == {"thousand", "spot", "gangs", "bucket", "drivers", "capped"}
    assert len(SCENARIOS["thousand"].nodes()) == 1000
    assert len(SCENARIOS["thousand"].steps()) == 10_000
