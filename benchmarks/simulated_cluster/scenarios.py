"""Scenarios of the simulated cluster."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from simulated_cluster.bucket import BucketModel
from simulated_cluster.faults import Faults
from simulated_cluster.nodes import SimulatedNode, SimulatedStep

from sweeps.execute.executors.job_placement import NodeCapacity
from sweeps.spec.resources import Caps, Resources

MINUTE, HOUR = 60.0, 3600.0
SHORTEST, LONGEST = MINUTE, 10 * HOUR


@dataclass(frozen=True)
class Scenario:
    """Cluster, sweep and faults."""

    name: str
    nodes: Callable[[], list[SimulatedNode]]
    steps: Callable[[], list[SimulatedStep]]
    rules: tuple[Resources, ...] = (Resources(cpus=1, gpus=1),)
    bucket: BucketModel = field(default_factory=BucketModel)
    drivers: int = 1
    faults: Faults = field(default_factory=Faults)
    caps: Caps = field(default_factory=Caps)
    dollars_per_hour: float = 2.0
    estimate_sigma: float = 0.2
    """Standard deviation of the logarithm of estimated over true seconds."""


def nodes_of(
    count: int, gpus: int = 1, speeds: tuple[float, ...] = (1.0,), slow: float = 0.0
) -> Callable[[], list[SimulatedNode]]:
    """Return nodes of three zones; a share of them is ``slow``, at half of the speed that they claim."""

    def build() -> list[SimulatedNode]:
        draw = random.Random(1)
        return [
            SimulatedNode(
                NodeCapacity(f"n{k:04d}", cpus=2.0 * gpus, gpus=gpus, speed=speeds[k % len(speeds)]),
                true_speed=0.5 if draw.random() < slow else 1.0,
                zone="abc"[k % 3],
            )
            for k in range(count)
        ]

    return build


def seconds_drawn(draw: random.Random) -> float:
    """Return seconds log-uniform from a minute to ten hours."""
    return math.exp(draw.uniform(math.log(SHORTEST), math.log(LONGEST)))


def teachers_and_students(count: int, teachers: int, seed: int = 0) -> Callable[[], list[SimulatedStep]]:
    """Return steps of which the first are teachers, and three quarters of the others wait for one."""

    def build() -> list[SimulatedStep]:
        draw = random.Random(seed)
        found = [SimulatedStep(f"{k:06x}", seconds_drawn(draw)) for k in range(teachers)]
        for k in range(teachers, count):
            needs = (found[draw.randrange(teachers)],) if draw.random() < 0.75 else ()
            found.append(SimulatedStep(f"{k:06x}", seconds_drawn(draw), needs))
        return found

    return build


GANGS = (
    Resources(cpus=1, gpus=1),
    Resources(from_params=1e8, cpus=8, gpus=8, nodes=2),
    Resources(from_params=1e9, cpus=8, gpus=8, nodes=4),
    Resources(from_params=1e10, cpus=8, gpus=8, nodes=8),
)


def gangs(teachers: int, students: int, seed: int = 0) -> Callable[[], list[SimulatedStep]]:
    """Return teachers on gangs of 2, 4 and 8 nodes, and students of each on single GPUs."""

    def build() -> list[SimulatedStep]:
        return list(_gangs(teachers, students, random.Random(seed)))

    return build


def _gangs(teachers: int, students: int, draw: random.Random) -> Iterator[SimulatedStep]:
    for k in range(teachers):
        size = draw.choice((1e8, 1e9, 1e10))
        teacher = SimulatedStep(f"t{k:05x}", draw.uniform(0.5, 4.0) * HOUR, params=size)
        yield teacher
        for n in range(students):
            yield SimulatedStep(f"s{k:04x}{n:04x}", seconds_drawn(draw) / 4, (teacher,))
            yield SimulatedStep(f"r{k:04x}{n:04x}", seconds_drawn(draw) / 4)


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("thousand", nodes_of(1000), teachers_and_students(10_000, 200)),
        Scenario(
            "spot",
            nodes_of(1000),
            teachers_and_students(10_000, 200),
            faults=Faults(preemptions_per_hour=0.05),
        ),
        Scenario("gangs", nodes_of(100, gpus=8), gangs(60, 50), rules=GANGS),
        Scenario(
            "bucket",
            nodes_of(300, slow=0.03),
            teachers_and_students(3000, 60),
            bucket=BucketModel(latency=0.1, errors=0.01, listing_lag=5.0, outages=((7200.0, 10_800.0),)),
        ),
        Scenario(
            "drivers",
            nodes_of(200, speeds=(1.0, 2.0)),
            teachers_and_students(2000, 40),
            drivers=10,
            faults=Faults(
                preemptions_per_hour=0.05,
                zone_lost_at=2 * HOUR,
                driver_lost_at=3 * HOUR,
                cut_off=(4 * HOUR, 4.2 * HOUR),
            ),
        ),
        Scenario(
            "capped",
            nodes_of(60),
            teachers_and_students(600, 12),
            bucket=BucketModel(latency=0.1, errors=0.01, listing_lag=5.0),
            drivers=4,
            faults=Faults(
                preemptions_per_hour=0.2,
                zone_lost_at=2 * HOUR,
                driver_lost_at=3 * HOUR,
                cut_off=(4 * HOUR, 4.2 * HOUR),
            ),
            caps=Caps(dollars=1000.0),
        ),
    )
}
