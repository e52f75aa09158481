"""Bounds on the makespan of a simulated sweep: critical path, work over devices, and list scheduling."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from simulated_cluster.nodes import SimulatedNode, SimulatedStep

from sweeps.spec.resources import Resources, resources_of


@dataclass(frozen=True)
class Bounds:
    """Seconds that a sweep takes at least, and with list scheduling."""

    critical_path: float
    work: float
    """All work over all devices."""
    list_scheduling: float


def bounds(
    steps: Sequence[SimulatedStep], nodes: Sequence[SimulatedNode], rules: Sequence[Resources]
) -> Bounds:
    """Return the bounds without faults, overheads and errors of estimates."""
    chains = _chains(steps)
    speeds = [each.node.speed * each.true_speed for each in nodes]
    asked = {step.id: resources_of([step], rules, Resources()) for step in steps}  # type: ignore[list-item]
    work = sum(step.seconds * asked[step.id].gpus * asked[step.id].nodes for step in steps)
    devices = sum(speed * each.node.gpus for speed, each in zip(speeds, nodes, strict=True))
    listed = _list_schedule(steps, nodes, asked, chains)
    return Bounds(max(chains.values()) / max(speeds), work / devices, listed)


def _chains(steps: Sequence[SimulatedStep]) -> dict[str, float]:
    """Return the seconds of the critical path from each step."""
    behind: dict[str, float] = {}
    chains: dict[str, float] = {}
    for step in reversed(steps):
        chains[step.id] = step.seconds + behind.get(step.id, 0.0)
        for need in step.needs:
            behind[need.id] = max(behind.get(need.id, 0.0), chains[step.id])
    return chains


def _list_schedule(
    steps: Sequence[SimulatedStep],
    nodes: Sequence[SimulatedNode],
    asked: dict[str, Resources],
    chains: dict[str, float],
) -> float:
    """Return the makespan of greedy list scheduling, the longest path first, whatever fits."""
    children: dict[str, list[SimulatedStep]] = {}
    missing = {step.id: len(step.needs) for step in steps}
    for step in steps:
        for need in step.needs:
            children.setdefault(need.id, []).append(step)
    ready = [(-chains[step.id], step.id, step) for step in steps if not step.needs]
    heapq.heapify(ready)
    free = {k: each.node.gpus for k, each in enumerate(nodes)}
    speed = [each.node.speed * each.true_speed for each in nodes]
    running: list[tuple[float, str, SimulatedStep, list[int]]] = []
    now = 0.0
    while ready or running:
        waiting = []
        while ready and free:
            entry = heapq.heappop(ready)
            wanted = asked[entry[1]]
            able = [k for k, gpus in free.items() if gpus >= wanted.gpus]
            if len(able) < wanted.nodes:
                waiting.append(entry)
                if len(waiting) > 200:
                    break
                continue
            used = sorted(able, key=lambda k: (-speed[k], free[k]))[: wanted.nodes]
            for k in used:
                free[k] -= wanted.gpus
                if free[k] <= 0:
                    del free[k]
            end = now + entry[2].seconds / min(speed[k] for k in used)
            heapq.heappush(running, (end, entry[1], entry[2], used))
        for entry in waiting:
            heapq.heappush(ready, entry)
        now, name, step, used = heapq.heappop(running)
        for k in used:
            free[k] = free.get(k, 0.0) + asked[name].gpus
        for child in children.get(name, ()):
            missing[child.id] -= 1
            if not missing[child.id]:
                heapq.heappush(ready, (-chains[child.id], child.id, child))
    return now
