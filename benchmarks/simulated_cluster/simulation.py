"""One simulation: drivers with the real scheduler, leases and budget on a simulated cluster and bucket."""

from __future__ import annotations

import random
import resource
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

from simulated_cluster.bounds import Bounds, bounds
from simulated_cluster.bucket import SimulatedBucket
from simulated_cluster.executor import SimulatedExecutor
from simulated_cluster.faults import FaultInjector
from simulated_cluster.nodes import Cluster
from simulated_cluster.scenarios import HOUR, Scenario
from simulated_cluster.virtual_time import VirtualClock

from sweeps.execute.drivers.drivers import BEATS_REMOTE, FIRST_BEAT, Session
from sweeps.execute.scheduler import Scheduler
from sweeps.execute.state import State
from sweeps.spec.resources import Devices
from sweeps.store import clock as clocks
from sweeps.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Report:
    """Figures of a simulation."""

    scenario: str
    steps: int
    done: int
    makespan: float
    """Simulated seconds."""
    bounds: Bounds
    utilization: float
    """Device seconds used over those that there were."""
    requests: int
    requests_per_second: float
    """Requests of drivers and workers together, a simulated second."""
    longest_look: float
    """Simulated seconds."""
    median_look: float
    nodes_lost: int
    attempts: int
    lost: int
    """Steps without a result at the end that no cap or failure explains."""
    doubled: int
    """Results that were committed twice, which the store must refuse."""
    stolen: int
    """Attempts that were taken over although their process lived and could write."""
    dollars: float
    """Cost of all device seconds that processes lived."""
    cap: float | None
    halted: tuple[str, ...]
    cpu_share: float
    """CPU seconds of the simulation over simulated seconds, an upper bound of those of the drivers' own code;
    the client of a real bucket needs a millisecond or two a request beside them."""
    wall_seconds: float
    peak_bytes: int

    @property
    def overspend(self) -> float:
        """Dollars above the cap as a share of it, measured from the lives of the simulated processes."""
        return max(0.0, self.dollars / self.cap - 1) if self.cap else 0.0

    @property
    def over_list_scheduling(self) -> float:
        """Makespan over that of list scheduling without faults."""
        return self.makespan / self.bounds.list_scheduling

    def __str__(self) -> str:
        ratio = self.makespan / self.bounds.list_scheduling
        lines = [
            f"{self.scenario}: {self.done} of {self.steps} steps done in {self.makespan / HOUR:.2f} h "
            f"({ratio:.3f} of list scheduling, {self.makespan / self.bounds.critical_path:.3f} of the "
            f"critical path, {self.makespan / self.bounds.work:.3f} of work over devices), "
            f"{100 * self.utilization:.1f} % utilization",
            f"  {self.attempts} attempts, {self.nodes_lost} nodes lost; {self.lost} steps lost, "
            f"{self.doubled} doubled, {self.stolen} stolen; {self.dollars:,.0f} dollars"
            + (f" of {self.cap:,.0f}, {100 * self.overspend:.1f} % above the cap" if self.cap else ""),
            f"  {self.requests:,} requests, {self.requests_per_second:.0f} a second; looks took "
            f"{self.median_look:.1f} s (median) to {self.longest_look:.1f} s",
            f"  {self.cpu_share:.4f} CPU seconds a simulated second, drivers and simulation together; "
            f"{self.wall_seconds:.0f} s and {self.peak_bytes / 1e6:.0f} MB in all",
        ]
        return "\n".join([*lines, *(f"  {why}" for why in self.halted)])


class SimulatedSession(Session):
    """Session whose heartbeats are events of virtual time."""

    def __init__(
        self, cluster: Cluster, slots: int, machine: str, faults: FaultInjector | None = None
    ) -> None:
        """Start the session of a driver; with ``faults``, these happen to its host."""
        super().__init__(cluster.store, slots)
        self.cluster, self.clock, self.faults, self.over = cluster, cluster.clock, faults, False
        self._writing: Any = nullcontext()  # threads take turns, and events of one are run by another
        self.record |= {"machine": machine, "pid": 1, "since": 1}

    def __enter__(self) -> SimulatedSession:
        self._write(ended=None, due=FIRST_BEAT)
        self.clock.after(FIRST_BEAT, lambda: self._beat_and_go_on(FIRST_BEAT))
        return self

    def __exit__(self, *_: object) -> None:
        if not self.over:
            self.over = True
            self._write(ended=clocks.timestamp())

    @property
    def cut_off(self) -> bool:
        return self.faults is not None and self.faults.driver_away

    @property
    def clock_ahead(self) -> float:
        return self.faults.driver_ahead if self.faults else 0.0

    def _beat_and_go_on(self, wait: float) -> None:
        if not self.over:
            due = min(2 * wait, BEATS_REMOTE)
            with self.cluster.asking(self):
                self._write(ended=None, due=due)
            self.clock.after(due, lambda: self._beat_and_go_on(due))


class TimedScheduler(Scheduler):
    """Scheduler that notes how long its looks take."""

    looks: list[float]

    def _look(self) -> None:
        due, before = self.look_due, clocks.monotonic()
        super()._look()
        if self.look_due != due:
            self.looks.append(clocks.monotonic() - before)


class Simulation:
    """Drivers, cluster and faults of a scenario."""

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        self.scenario, self.draw = scenario, random.Random(seed)
        self.clock = VirtualClock()
        self.bucket = SimulatedBucket(scenario.bucket, self.clock, seed)
        self.store = Store("memory://simulated")
        self.store.files = self.bucket
        self.steps, self.first_nodes = scenario.steps(), scenario.nodes()
        self.cluster = Cluster(self.clock, self.bucket, self.store, self.steps, list(self.first_nodes))
        self.estimates = {
            step.id: step.seconds * self.draw.lognormvariate(0.0, scenario.estimate_sigma)
            for step in self.steps
        }
        self.faults = FaultInjector(scenario.faults, self.cluster, self.draw, self._count_devices)
        self.drivers: dict[int, tuple[threading.Thread, SimulatedExecutor, list[SimulatedSession]]] = {}
        self.states: list[State] = []
        self.looks: list[float] = []
        self.device_seconds, self._counted = 0.0, 0.0

    def run(self) -> Report:
        """Run the scenario to its end."""
        began, cpu = time.monotonic(), time.process_time()
        with clocks.replaced_by(self.clock), self.bucket.concurrent():
            for number in range(self.scenario.drivers):
                self._start_driver(number, at=float(number))
            self.faults.plan(self._lose_driver)
            self.clock.run()
        self._count_devices()
        return self._report(time.monotonic() - began, time.process_time() - cpu)

    def _start_driver(self, number: int, at: float) -> None:
        part = self.scenario.drivers
        executor = SimulatedExecutor(
            self.cluster, self.scenario.rules[0], lambda name: int(name[1:5]) % part == number
        )
        sessions: list[SimulatedSession] = []

        def drive() -> None:
            faults = None if number else self.faults
            session = SimulatedSession(self.cluster, executor.slots, f"driver {number} {at}", faults)
            self.cluster.drivers[threading.current_thread()] = session
            sessions.append(session)
            scheduler = TimedScheduler(*self._arguments(executor, session))
            scheduler.looks = self.looks
            with session:
                self.states.append(scheduler.run(lambda _: None))

        self.drivers[number] = self.clock.start(at, drive), executor, sessions

    def _arguments(self, executor: SimulatedExecutor, session: Session) -> Any:
        dag = SimpleNamespace(steps=tuple(self.steps))
        devices = Devices(dollars_per_hour=self.scenario.dollars_per_hour)
        sweep = SimpleNamespace(
            resources=list(self.scenario.rules), caps=self.scenario.caps, hardware=devices
        )
        return dag, self.store, executor, lambda step: self.estimates[step.id], session, sweep

    def _lose_driver(self) -> None:
        thread, executor, sessions = self.drivers[0]
        self.clock.killed.add(thread)
        for session in sessions:
            session.over = True
        executor.close()
        self._start_driver(0, self.clock.now + 60.0)

    def _count_devices(self) -> None:
        there = sum(node.node.gpus for node in self.cluster.nodes.values())
        self.device_seconds += there * (self.clock.now - self._counted)
        self._counted = self.clock.now

    def _report(self, wall: float, cpu: float) -> Report:
        results = {path.split("/")[-2] for path in self.bucket.data if path.endswith("/result.json")}
        halted = sorted({state.halted for state in self.states if state.halted})
        missing = 0 if halted else len(self.steps) - len(results)
        names = [path.split("/")[-1] for path in self.bucket.data if "/attempts/" in path]
        attempts = sum(name.endswith(".json") and name.count(".") == 1 for name in names)
        requests, looks = sum(self.bucket.counts.values()), sorted(self.looks)
        price = self.scenario.dollars_per_hour / HOUR
        return Report(
            scenario=self.scenario.name,
            steps=len(self.steps),
            done=len(results),
            makespan=self.clock.now,
            bounds=bounds(self.steps, self.first_nodes, self.scenario.rules),
            utilization=self.cluster.used / self.device_seconds,
            requests=requests,
            requests_per_second=requests / self.clock.now,
            longest_look=looks[-1],
            median_look=looks[len(looks) // 2],
            nodes_lost=sum(self.cluster.lost.values()),
            attempts=attempts,
            lost=missing,
            doubled=self.cluster.doubled,
            stolen=self.cluster.stolen,
            dollars=self.cluster.used * price,
            cap=self.scenario.caps.dollars,
            halted=tuple(halted),
            cpu_share=cpu / self.clock.now,
            wall_seconds=wall,
            peak_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        )


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as plain values."""
    return {**asdict(report), "over_list_scheduling": report.over_list_scheduling}
