"""The simulated cluster in small: the real scheduler, leases and budget over faults, in virtual time."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from simulated_cluster import scenarios, workers
from simulated_cluster.bucket import BucketModel
from simulated_cluster.faults import Faults
from simulated_cluster.nodes import SimulatedStep
from simulated_cluster.scenarios import GANGS, HOUR, SCENARIOS, Scenario, gangs, nodes_of
from simulated_cluster.simulation import Report, Simulation
from simulated_cluster.virtual_time import VirtualClock

from sweeps.execute.scheduler import LOOK_REMOTE
from sweeps.spec.resources import Caps

MINUTES = 60.0
FEW = scenarios.teachers_and_students(50, 3)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of one to twenty minutes."""
    monkeypatch.setattr(scenarios, "LONGEST", 20 * MINUTES)


def simulate(scenario: Scenario) -> Report:
    report = Simulation(scenario).run()
    assert report.lost == report.doubled == report.stolen == 0, report
    assert report.longest_look <= LOOK_REMOTE, report
    return report


def small(**fields: object) -> Scenario:
    usual = Scenario("small", nodes_of(12), scenarios.teachers_and_students(120, 6))
    return replace(usual, **fields)  # type: ignore[arg-type]


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
    """Preemption, lost zone and driver, partitions, jumping clocks, a slow bucket with failures and lag."""
    faults = Faults(
        preemptions_per_hour=1.0,
        boot_seconds=60.0,
        zone_lost_at=10 * MINUTES,
        driver_lost_at=15 * MINUTES,
        cut_off=(25 * MINUTES, 29 * MINUTES),
        clock_jumps=((20 * MINUTES, 30 * HOUR), (33 * MINUTES, -60 * HOUR)),
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


def test_an_attempt_that_nobody_could_hear_of_is_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ninety seconds without the store are longer than a lease; its holder has had no chance to renew it.

    Heartbeats are rare here, so that drivers look again before the first.
    """
    monkeypatch.setattr(workers, "CHECKPOINT_SECONDS", HOUR)
    monkeypatch.setattr(workers, "BEAT_SECONDS", 30.0)
    steps = [SimulatedStep(f"{number:06x}", 1200.0) for number in range(12)]
    bucket = BucketModel(outages=((600.0, 690.0),))
    report = simulate(small(nodes=nodes_of(24), steps=lambda: steps, drivers=3, bucket=bucket))
    assert report.done == report.attempts == 12


@pytest.mark.usefixtures("short")
def test_a_driver_that_cannot_reach_the_store_for_an_hour_finds_what_its_workers_have_done() -> None:
    report = simulate(small(steps=FEW, drivers=2, faults=Faults(driver_cut_off=(600.0, 600.0 + HOUR))))
    assert report.done == report.attempts == 50


@pytest.mark.usefixtures("short")
def test_wall_clocks_that_jump_by_hours_change_nothing_but_what_they_are_told_to_be() -> None:
    """Leases are neither stolen nor held for ever: the same looks, takeovers and dollars to the last digit."""

    def simulated(*jumps: float) -> tuple[Report, set[str]]:
        times = (300.0, 900.0, 1500.0)
        faults = Faults(
            preemptions_per_hour=1.0,
            driver_lost_at=1200.0,
            clock_jumps=tuple(zip(times, jumps, strict=True)),
        )
        simulation = Simulation(small(steps=FEW, drivers=2, faults=faults))
        report = replace(simulation.run(), cpu_share=0.0, wall_seconds=0.0, peak_bytes=0)
        days = {json.loads(data).get("started", "")[:10] for data, _ in simulation.bucket.data.values()}
        return report, days

    still, days = simulated(0.0, 0.0, 0.0)
    jumped, other_days = simulated(30 * HOUR, -60 * HOUR, 12 * HOUR)
    assert jumped == still
    assert still.done == 50 < still.attempts
    assert len(other_days) >= len(days) + 2


def test_the_shipped_scenarios_are_those_of_the_documentation() -> None:
    assert set(SCENARIOS) == {"thousand", "spot", "gangs", "bucket", "drivers", "capped"}
    assert len(SCENARIOS["thousand"].nodes()) == 1000
    assert len(SCENARIOS["thousand"].steps()) == 10_000
