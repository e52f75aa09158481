"""Faults of the nodes of a simulated cluster, their network, their clocks and the drivers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulated_cluster.nodes import Cluster, SimulatedNode

HOUR = 3600.0
NEVER = math.inf, math.inf
WATCHED = 10
"""Number of nodes of which one is cut off, or has a clock that jumps."""


@dataclass(frozen=True)
class Faults:
    """Faults of the nodes, their network and clocks, and the drivers."""

    preemptions_per_hour: float = 0.0
    """Rate at which each node is lost, exponentially distributed."""
    boot_seconds: float = 300.0
    """Seconds until a lost node is replaced, and in which the first ones come."""
    zone_lost_at: float = math.inf
    """Time at which all nodes of zone ``a`` are lost."""
    driver_lost_at: float = math.inf
    """Time at which the first driver is lost; another is started a minute later."""
    cut_off: tuple[float, float] = NEVER
    """Times from and to which every tenth node is cut off."""
    driver_cut_off: tuple[float, float] = NEVER
    """Times from and to which the first driver is cut off from the store, its workers not."""
    clock_jumps: tuple[tuple[float, float], ...] = ()
    """Times, and seconds by which the wall clocks of the first driver and of every tenth node jump then."""


class FaultInjector:
    """Injector of the faults of a scenario."""

    def __init__(
        self, faults: Faults, cluster: Cluster, draw: random.Random, count: Callable[[], None]
    ) -> None:
        """Inject faults into ``cluster``; ``count`` counts the devices that there were until now."""
        self.faults, self.cluster, self.draw, self.count = faults, cluster, draw, count
        self.driver_away = False
        self.driver_ahead = 0.0
        """Seconds by which the wall clock of the first driver is ahead."""

    def plan(self, lose_driver: Callable[[], None]) -> None:
        """Plan all faults; ``lose_driver`` loses the first driver, and starts another."""
        faults, clock = self.faults, self.cluster.clock
        for number, node in enumerate(self.cluster.nodes.values()):
            faulty = faults.cut_off != NEVER or faults.clock_jumps
            node.watched = bool(faulty) and number % WATCHED == 0
        if faults.preemptions_per_hour:
            for name in list(self.cluster.nodes):
                self._preempt_later(name)
        happen = [(faults.zone_lost_at, self._lose_zone), (faults.driver_lost_at, lose_driver)]
        for cut, at in zip((True, False), faults.cut_off, strict=True):
            happen += [(at, partial(self._cut_off, cut=cut))]
        for cut, at in zip((True, False), faults.driver_cut_off, strict=True):
            happen += [(at, partial(self._cut_driver_off, cut=cut))]
        happen += [(at, partial(self._jump, seconds)) for at, seconds in faults.clock_jumps]
        happen += [(begin, self._throttle) for begin, _ in self.cluster.bucket.model.outages]
        for at, what in happen:
            if at < math.inf:
                clock.at(at, what)

    def _preempt_later(self, name: str) -> None:
        rate = self.faults.preemptions_per_hour / HOUR
        self.cluster.clock.after(self.draw.expovariate(rate), partial(self._lose, name, "preempted"))

    def _lose(self, name: str, why: str) -> None:
        self.count()
        if node := self.cluster.remove(name, why):
            self.cluster.clock.after(self.faults.boot_seconds, partial(self._replace, node))

    def _replace(self, lost: SimulatedNode) -> None:
        self.count()
        self.cluster.add(replace(lost, workers=set(), cut_off=False))
        if self.faults.preemptions_per_hour:
            self._preempt_later(lost.node.name)

    def _lose_zone(self) -> None:
        for name in [name for name, node in self.cluster.nodes.items() if node.zone == "a"]:
            self._lose(name, "its zone was lost")

    def _cut_off(self, *, cut: bool) -> None:
        for node in self.cluster.nodes.values():
            node.cut_off = cut and node.watched

    def _cut_driver_off(self, *, cut: bool) -> None:
        self.driver_away = cut

    def _jump(self, seconds: float) -> None:
        self.driver_ahead += seconds
        for node in self.cluster.nodes.values():
            node.clock_ahead += seconds if node.watched else 0.0

    def _throttle(self) -> None:
        """Let checkpoints fail, as all requests do from now on."""
        for executor in self.cluster.executors:
            for worker in list(executor.workers.values()):
                worker.lose_store()
