"""Nodes of a simulated cluster, the steps of its sweep, and who asks the store for what."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from simulated_cluster.bucket import SimulatedBucket
from simulated_cluster.virtual_time import VirtualClock

from sweeps.execute.executors.job_placement import NodeCapacity
from sweeps.store.store import Store

if TYPE_CHECKING:
    from simulated_cluster.executor import SimulatedExecutor
    from simulated_cluster.workers import Worker


class Asker(Protocol):
    """Process that asks the store, on a host with a network and a clock of its own."""

    @property
    def cut_off(self) -> bool:
        """True if its network is cut."""

    @property
    def clock_ahead(self) -> float:
        """Seconds by which its wall clock is ahead."""


@dataclass
class SimulatedNode:
    """Node, with what it does to those who use it."""

    node: NodeCapacity
    true_gpus: float | None = None
    """GPUs that it really has, if it lies."""
    true_speed: float = 1.0
    """Speed that it really has, relative to what it says."""
    zone: str = ""
    workers: set[Worker] = field(default_factory=set)
    cut_off: bool = False
    clock_ahead: float = 0.0
    """Seconds by which its wall clock is ahead."""
    watched: bool = False
    """True if heartbeats from it are simulated one by one, as it may be cut off."""


@dataclass(frozen=True, eq=False)
class SimulatedStep:
    """Step of a simulated sweep, with the attributes that a scheduler reads."""

    id: str
    seconds: float
    """True seconds on a device of speed 1."""
    needs: tuple[SimulatedStep, ...] = ()
    params: float = 1e6
    kind: str = "pretrain"
    teacher = trainer = method = logits = texts = None
    features: tuple[()] = ()
    corpus_fingerprint = "text"
    served = asks_server = False

    @property
    def label(self) -> str:
        return self.id

    @property
    def shape(self) -> SimulatedStep:
        return self

    @property
    def total_params(self) -> float:
        return self.params

    @property
    def flops_to_spend(self) -> float:
        return 1e12 * self.seconds

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "kind": self.kind}


class Cluster:
    """Nodes and their workers."""

    def __init__(
        self,
        clock: VirtualClock,
        bucket: SimulatedBucket,
        store: Store,
        steps: list[SimulatedStep],
        nodes: list[SimulatedNode],
    ) -> None:
        self.clock, self.bucket, self.store = clock, bucket, store
        self.steps = {step.id: step for step in steps}
        self.nodes = {each.node.name: each for each in nodes}
        self.executors: list[SimulatedExecutor] = []
        self.saved: dict[str, float] = {}
        """Seconds of work in the checkpoints of each step."""
        self.used, self.doubled = 0.0, 0
        """Device seconds used, and results that were committed twice."""
        self.lost: Counter[str] = Counter()
        self.stolen = 0
        """Attempts that were taken over although their process lived and could write."""
        self.holders: dict[str, Worker] = {}
        """Last worker that has claimed each step."""
        self.drivers: dict[threading.Thread, Asker] = {}
        """Drivers by their threads."""
        self._asking: Asker | None = None
        bucket.away = lambda: self.asker is not None and self.asker.cut_off
        clock.ahead = lambda: self.asker.clock_ahead if self.asker else 0.0
        self._changes = itertools.count(1)
        self.version = 0
        """Changes with the nodes that there are."""

    def asking(self, asker: Asker) -> Any:
        """Attribute requests to a process while the block of an event runs."""
        return _Asking(self, asker)

    @property
    def asker(self) -> Asker | None:
        """Process that asks the store or its clock now, if it has a host with faults."""
        if self._asking or self.clock.inside_event:
            return self._asking
        return self.drivers.get(threading.current_thread())

    def seconds_left(self, step: str) -> float:
        return max(0.0, self.steps[step].seconds - self.saved.get(step, 0.0))

    def checkpoint(self, step: str, worked: float) -> None:
        """Keep work of this attempt."""
        whole = self.steps[step].seconds
        self.saved[step] = min(whole, self.saved.get(step, 0.0) + max(0.0, worked))

    def result_of(self, step: str) -> dict[str, Any]:
        return {"id": step, "step": {"kind": "pretrain"}, "loss": 1.0}

    def add(self, node: SimulatedNode) -> None:
        """Let a node join."""
        self.nodes[node.node.name] = node
        self.version = next(self._changes)

    def remove(self, name: str, why: str) -> SimulatedNode | None:
        """Lose a node with all that runs on it."""
        node = self.nodes.pop(name, None)
        if node:
            self.version = next(self._changes)
            self.lost[why] += 1
            for worker in list(node.workers):
                worker.lose(f"node {name}: {why}")
        return node

    def leave(self, worker: Worker) -> None:
        worker.owner.placement.release(worker.job.name)
        worker.owner.workers.pop(worker.job.name, None)

    def hold(self, step: str, worker: Worker) -> None:
        """Note who has claimed a step, and whether somebody else was still at work on it."""
        before = self.holders.get(step)
        if before and before is not worker and before.holds(step):
            self.stolen += 1
        self.holders[step] = worker


@dataclass
class _Asking:
    cluster: Cluster
    asker: Asker

    def __enter__(self) -> None:
        self.cluster._asking = self.asker

    def __exit__(self, *_: object) -> None:
        self.cluster._asking = None
