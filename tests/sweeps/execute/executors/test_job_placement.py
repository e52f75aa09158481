"""Placement of jobs on nodes: shares, gangs, reservation, backfill, speed and locality."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest

from sweeps.execute.executors.job_placement import DISTRUST_SECONDS, Demand, JobPlacement, NodeCapacity, Slot
from sweeps.execute.executors.ray_requests import within_surplus
from sweeps.spec.resources import Resources
from sweeps.store import clock

HOUR = 3600.0


class At:
    """Clock that stands at ``now``."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def at() -> Any:
    with clock.replaced_by(found := At()):
        yield found


@dataclass(frozen=True)
class Work:
    """Stands for a step."""

    id: str
    seconds: float = HOUR
    gpus: float = 1.0
    nodes: int = 1
    kept: tuple[str, ...] = ()


def choose(placement: JobPlacement, *works: Work) -> tuple[dict[str, Slot], list[str]]:
    """Slots by work, and works that wait, in order."""
    waiting: deque[Any] = deque((work,) for work in works)

    def demand(cohort: Any) -> Demand:
        (work,) = cohort
        resources = Resources(cpus=1, gpus=work.gpus, nodes=work.nodes)
        return Demand(resources, work.seconds, frozenset(work.kept))

    found = placement.choose(waiting, demand)
    return {slot.cohort[0].id: slot for slot in found}, [cohort[0].id for cohort in waiting]


def eights(count: int, **about: float) -> list[NodeCapacity]:
    return [NodeCapacity(f"n{k}", cpus=32, gpus=8, **about) for k in range(count)]


def test_shares_of_gpus_are_packed_and_whole_ones_stay_whole(at: At) -> None:
    placement = JobPlacement([NodeCapacity("n", cpus=32, gpus=2)])
    found, waiting = choose(placement, *(Work(f"q{k}", gpus=0.25) for k in range(4)), Work("whole"))
    assert set(found) == {"q0", "q1", "q2", "q3", "whole"}
    assert not waiting
    assert choose(placement, Work("late", gpus=0.25))[1] == ["late"]
    placement.release(found["q2"].job)
    assert choose(placement, Work("whole again"), Work("late", gpus=0.25))[1] == ["whole again"]


def test_small_jobs_fill_the_wait_of_a_gang_and_do_not_prolong_it(at: At) -> None:
    """A gang of 4 nodes waits for two that are busy for an hour."""
    placement = JobPlacement(eights(4))
    busy, _ = choose(placement, Work("first", gpus=8), Work("second", gpus=8, seconds=0.5 * HOUR))
    works = [Work("gang", gpus=8, nodes=4), Work("long", seconds=2 * HOUR), Work("short", seconds=0.9 * HOUR)]
    found, waiting = choose(placement, *works)
    assert set(found) == {"short"}
    assert waiting == ["gang", "long"]
    at.now = 0.95 * HOUR
    placement.release(found["short"].job)
    placement.release(busy["second"].job)
    found, waiting = choose(placement, *works)
    assert waiting == ["gang", "long", "short"]
    at.now = HOUR
    placement.release(busy["first"].job)
    found, waiting = choose(placement, *works)
    assert set(found) == {"gang"}
    assert len(set(found["gang"].nodes)) == 4


def test_a_stream_of_small_jobs_never_starves_a_gang_and_gangs_do_not_block_each_other(at: At) -> None:
    """Every job ends on time; new small ones come each minute, and two gangs want all nodes."""
    placement, running, started = JobPlacement(eights(4)), dict[str, Slot](), dict[str, float]()
    gangs = [Work("one", gpus=8, nodes=4, seconds=HOUR), Work("two", gpus=8, nodes=3, seconds=HOUR)]
    small = [Work(f"s{k:04d}", seconds=600.0 + 60 * (k % 50)) for k in range(2000)]
    waiting, arrived = [*small[:32]], 32
    for minute in range(4 * 60):
        at.now = 60.0 * minute
        for name in [name for name, slot in running.items() if slot.expected_end <= at.now]:
            placement.release(running.pop(name).job)
        if minute == 5:
            waiting = [*gangs, *waiting]
        waiting += small[arrived : arrived + 2]
        arrived += 2
        found, _ = choose(placement, *waiting)
        started |= dict.fromkeys(found, at.now)
        running |= found
        waiting = [work for work in waiting if work.id not in found]
    longest = max(work.seconds for work in small)
    assert started["one"] <= 300.0 + longest + 60.0  # as soon as what ran before it has ended
    assert started["two"] <= started["one"] + HOUR + 60.0
    assert sum(300.0 < when < started["one"] for name, when in started.items() if name[0] == "s") > 10


def test_the_longest_path_has_the_fastest_devices_and_what_it_reads_nearby(at: At) -> None:
    nodes = [
        NodeCapacity("slow", 8, 1),
        NodeCapacity("fast", 8, 1, speed=3.0),
        NodeCapacity("here", 8, 1),
        NodeCapacity("away", 8, 1),
    ]
    placement = JobPlacement(nodes)
    found, _ = choose(placement, Work("longest"), Work("a", kept=("x",)), Work("b"), Work("c", kept=("y",)))
    assert found["longest"].nodes == ("fast",)
    assert found["longest"].expected_end == HOUR / 3
    homes = {name: slot.nodes for name, slot in found.items()}
    for slot in found.values():
        placement.release(slot.job)
    found, _ = choose(placement, Work("longest"), Work("d", kept=("y",)), Work("e", kept=("x",)))
    assert found["d"].nodes == homes["c"]
    assert found["e"].nodes == homes["a"]


def test_nodes_that_go_come_and_lie(at: At) -> None:
    placement = JobPlacement(eights(2))
    wanted = Work("gang", gpus=8, nodes=2)
    placement.distrust(["n1"])
    assert choose(placement, wanted, Work("small", seconds=9 * HOUR))[1] == ["gang"]  # reserves nothing
    assert placement.waits is not None
    placement.release(next(iter(placement._slots)))
    at.now = DISTRUST_SECONDS
    found, _ = choose(placement, wanted)
    placement.update(eights(1))
    placement.release(found["gang"].job)
    assert choose(placement, wanted)[1] == ["gang"]
    assert placement.waits is not None
    assert placement.waits[2] == at.now  # nothing that runs can end its wait
    at.now += 60
    choose(placement, wanted)
    assert placement.waits[2] == DISTRUST_SECONDS
    placement.update(eights(3))
    assert set(choose(placement, wanted)[0]) == {"gang"}
    assert placement.waits is None


def test_a_slower_node_that_comes_changes_speeds_and_frees_nothing(at: At) -> None:
    placement = JobPlacement([NodeCapacity("n", cpus=4, gpus=1)])
    found, _ = choose(placement, Work("first"))
    placement.update([NodeCapacity("n", cpus=4, gpus=1, speed=2.0), NodeCapacity("slow", cpus=4, gpus=1)])
    found, waiting = choose(placement, Work("second"), Work("third"))
    assert found["second"].nodes == ("slow",)
    assert waiting == ["third"]


def test_jobs_without_gpus_run_beside_full_gpus(at: At) -> None:
    placement = JobPlacement([NodeCapacity("n", cpus=4, gpus=1)])
    found, waiting = choose(
        placement, Work("gpu"), Work("cpu", gpus=0), Work("gpu too"), Work("cpu too", gpus=0)
    )
    assert set(found) == {"gpu", "cpu", "cpu too"}
    assert waiting == ["gpu too"]


def test_a_cluster_without_a_node_tells_what_it_lacks(at: At) -> None:
    """An autoscaler may start from none, or only from a head that runs nothing; it is asked for the first."""
    placement = JobPlacement([NodeCapacity("head", cpus=0)])
    works = [Work(f"w{k}", gpus=k) for k in range(1, 200)]
    assert choose(placement, *works)[0] == {}
    assert placement.waits is not None
    assert placement.waits[1] == Resources(gpus=1)
    assert [each.gpus for each in placement.short] == list(range(1, 101))
    placement.update(eights(1))
    assert set(choose(placement, *works)[0]) == {"w1", "w2", "w3"}
    assert within_surplus(placement.short, placement.nodes) == [Resources(gpus=4)]
    assert within_surplus(placement.short, eights(8)) == [
        Resources(gpus=4),
        Resources(gpus=5),
        Resources(gpus=6),
    ]
    assert within_surplus([], eights(1)) == []
