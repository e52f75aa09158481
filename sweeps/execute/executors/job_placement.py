"""Placement of jobs on the nodes of a cluster: gangs by reservation, small jobs by backfill.

Jobs are placed in the order of the scheduler, the longest path first. The first that has no room reserves the
nodes that are expected to be free earliest; later jobs run on these only if they end before that, by their
estimates. So a gang is not overtaken for ever, no two gangs wait for each other's halves, and its wait is
filled (EASY backfill: Lifka, 1995).
"""

from __future__ import annotations

import math
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice

from sweeps.execute.teacher_sharing import Cohort
from sweeps.spec.resources import Resources
from sweeps.store import clock

BACKFILL_WINDOW = 500
"""Largest number of cohorts that are tried behind the first that has no room."""
BATCH = 256
"""Largest number of cohorts that are placed at a time."""
OVERRUN_SHARE = 0.1
"""Time left of a job that has exceeded its estimate, as a share of the time that it has run."""
DISTRUST_SECONDS, LOSS_SECONDS = 3600.0, 600.0
"""Seconds for which a node is avoided on which a worker could not start, or was lost before it had begun."""
SHORT = 100
"""Largest number of cohorts left waiting whose resources are kept."""
TINY = 1e-9


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """Node of a cluster."""

    name: str
    cpus: float
    gpus: float = 0.0
    speed: float = 1.0
    """Speed of its devices, relative to those that estimates are for."""
    host: str = ""
    """Name for people, where ``name`` is none."""

    def __str__(self) -> str:
        return self.host or self.name


@dataclass(frozen=True, slots=True)
class Demand:
    """Resources and time that a cohort asks of the nodes."""

    resources: Resources
    seconds: float
    """Estimated seconds at speed 1."""
    kept: frozenset[str] = frozenset()
    """Corpora and caches of teachers that it reads, which a node may keep."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Nodes of one job."""

    cohort: Cohort
    nodes: tuple[str, ...]
    """A node for each of its ranks, in their order."""
    resources: Resources
    began: float
    expected_end: float
    job: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Name of the job."""


class _NodeState:
    """Free cores and GPUs of a node, and the jobs on it."""

    def __init__(self, node: NodeCapacity) -> None:
        self.node, self.cpus = node, node.cpus
        self.gpus = [1.0] * int(node.gpus)
        """Free share of each GPU."""
        self.slots: dict[str, tuple[Slot, list[int]]] = {}
        """Jobs on it, each with the indices of its GPUs."""
        self.kept: set[str] = set()
        self.avoided_until = -math.inf

    def gpus_for(self, resources: Resources, free: list[float] | None = None) -> list[int] | None:
        """Return the GPUs that a job would use, the fullest that has room for a share; None without room."""
        free = self.gpus if free is None else free
        if not resources.gpus:
            return []
        if resources.gpus < 1:
            able = [k for k, share in enumerate(free) if share >= resources.gpus - TINY]
            return [min(able, key=free.__getitem__)] if able else None
        whole = [k for k, share in enumerate(free) if share >= 1 - TINY]
        count = int(resources.gpus)
        return whole[:count] if len(whole) >= count else None

    def fits(self, resources: Resources) -> bool:
        """Return True if a job has room now."""
        return self.cpus >= resources.cpus - TINY and self.gpus_for(resources) is not None

    def could_hold(self, resources: Resources) -> bool:
        """Return True if a job had room if nothing else ran."""
        whole = [1.0] * len(self.gpus)
        return self.node.cpus >= resources.cpus and self.gpus_for(resources, whole) is not None

    def take(self, slot: Slot) -> None:
        used = self.gpus_for(slot.resources) or []
        self.slots[slot.job] = slot, used
        self._change(slot.resources, used, -1)

    def release(self, job: str) -> None:
        slot, used = self.slots.pop(job)
        self._change(slot.resources, used, +1)

    def _change(self, resources: Resources, used: list[int], sign: int) -> None:
        self.cpus += sign * resources.cpus
        for k in used:
            self.gpus[k] += sign * min(1.0, resources.gpus)

    def free_from(self, resources: Resources, now: float) -> float:
        """Return the expected time from which a job has room here; infinity if never, or if it is avoided."""
        if self.avoided_until > now or not self.could_hold(resources):
            return math.inf
        free, cpus, at = list(self.gpus), self.cpus, now
        ends = sorted((_end(slot, now), job) for job, (slot, _) in self.slots.items())
        for end, job in ends:
            if cpus >= resources.cpus - TINY and self.gpus_for(resources, free) is not None:
                break
            slot, used = self.slots[job]
            at, cpus = end, cpus + slot.resources.cpus
            for k in used:
                free[k] += min(1.0, slot.resources.gpus)
        return at


def _end(slot: Slot, now: float) -> float:
    return max(slot.expected_end, now + OVERRUN_SHARE * (now - slot.began))


class JobPlacement:
    """Jobs of one driver on the nodes of a cluster."""

    def __init__(self, nodes: Iterable[NodeCapacity] = ()) -> None:
        self._nodes: dict[str, _NodeState] = {}
        self._slots: dict[str, Slot] = {}
        self._open: tuple[dict[str, _NodeState], dict[str, _NodeState]] = {}, {}
        """Nodes with a free core, and nodes that also have a part of a GPU free."""
        self.waits: tuple[Cohort, Resources, float] | None = None
        """First cohort that the nodes cannot hold even if nothing else runs, and since when it waits."""
        self.short: list[Resources] = []
        """Resources of the first cohorts that were left waiting at the last choice, at most :data:`SHORT`."""
        self.update(nodes)

    def update(self, nodes: Iterable[NodeCapacity]) -> None:
        """Take in the nodes that there are now; jobs on lost ones stay until they are released."""
        there = {node.name: node for node in nodes}
        for name in self._nodes.keys() - there.keys():
            del self._nodes[name]
            self._file(name)
        for name, node in there.items():
            had = self._nodes[name].node if name in self._nodes else None
            if had and (had.cpus, had.gpus) == (node.cpus, node.gpus):
                self._nodes[name].node = node  # its speed is relative to others
            else:
                self._nodes[name] = _NodeState(node)
                self._file(name)

    def _file(self, name: str) -> None:
        """Note whether a node has something free."""
        state = self._nodes.get(name)
        cores = state is not None and state.cpus >= 1 - TINY
        shares = cores and state is not None and max(state.gpus, default=0.0) > TINY
        for there, has in zip(self._open, (cores, shares), strict=True):
            there.pop(name, None)
            if has and state:
                there[name] = state

    @property
    def nodes(self) -> list[NodeCapacity]:
        """The nodes."""
        return [each.node for each in self._nodes.values()]

    def distrust(self, names: Iterable[str], seconds: float = DISTRUST_SECONDS) -> list[NodeCapacity]:
        """Avoid nodes for a while, as a worker could not start there; return those trusted until now."""
        now, found = clock.monotonic(), list[NodeCapacity]()
        for state in (self._nodes[name] for name in names if name in self._nodes):
            if state.avoided_until <= now:
                found.append(state.node)
            state.avoided_until = max(state.avoided_until, now + seconds)
        return found

    @property
    def distrusted(self) -> list[NodeCapacity]:
        """Nodes that are avoided now."""
        now = clock.monotonic()
        return [each.node for each in self._nodes.values() if each.avoided_until > now]

    def able(self, resources: Resources, but: Collection[str] = ()) -> int:
        """Return the number of trusted nodes, without ``but``, that could hold their part of a job."""
        now = clock.monotonic()
        trusted = (
            each for name, each in self._nodes.items() if name not in but and each.avoided_until <= now
        )
        return sum(each.could_hold(resources) for each in trusted)

    def gpus_of(self, job: str) -> list[list[int]]:
        """Return the indices of a job's GPUs on each of its nodes, in their order."""
        return [self._nodes[name].slots[job][1] for name in self._slots[job].nodes]

    def release(self, job: str) -> None:
        """Free the nodes of a job that has ended, or was not submitted."""
        slot = self._slots.pop(job, None)
        for name in slot.nodes if slot else ():
            state = self._nodes.get(name)
            if state and job in state.slots:
                state.release(job)
                self._file(name)

    def choose(self, waiting: deque[Cohort], demand: Callable[[Cohort], Demand]) -> list[Slot]:
        """Remove the cohorts that can start now from those that wait, and return their nodes."""
        chosen, passed = list[Slot](), list[Cohort]()
        refused: dict[Resources, float] = {}
        reserved, until, waits = frozenset[str](), math.inf, None
        full = bool(self._slots) and not self._open[0]
        while waiting and not full and len(chosen) < BATCH and len(passed) < BACKFILL_WINDOW:
            cohort = waiting.popleft()
            wanted = demand(cohort)
            slot = None
            if wanted.seconds < refused.get(wanted.resources, math.inf):
                slot = self._place(cohort, wanted, reserved, until)
            full = not self._open[0]
            if slot:
                chosen.append(slot)
                continue
            passed.append(cohort)
            refused[wanted.resources] = min(wanted.seconds, refused.get(wanted.resources, math.inf))
            if not reserved:
                reserved, until = self._reserve(wanted)
                waits = waits or (None if reserved else (cohort, wanted.resources))
        waiting.extendleft(reversed(passed))
        self.short = [demand(cohort).resources for cohort in islice(waiting, SHORT)]
        if chosen or passed:
            since = self.waits[2] if self.waits else clock.monotonic()
            self.waits = (*waits, since) if waits else None
        return chosen

    def _place(self, cohort: Cohort, wanted: Demand, reserved: frozenset[str], until: float) -> Slot | None:
        """Return the best nodes for a cohort, now taken; None if there is no room."""
        now, found = clock.monotonic(), list[tuple[float, int, float, float, str]]()
        for name, state in self._open[bool(wanted.resources.gpus)].items():
            node = state.node
            if not state.fits(wanted.resources) or state.avoided_until > now:
                continue
            if name in reserved and now + wanted.seconds / node.speed > until:
                continue
            found.append((-node.speed, -len(wanted.kept & state.kept), sum(state.gpus), state.cpus, name))
        if len(found) < wanted.resources.nodes:
            return None
        names = tuple(name for *_, name in sorted(found)[: wanted.resources.nodes])
        slowest = min(self._nodes[name].node.speed for name in names)
        slot = Slot(cohort, names, wanted.resources, now, now + wanted.seconds / slowest)
        self._slots[slot.job] = slot
        for name in names:
            state = self._nodes[name]
            state.take(slot)
            state.kept |= wanted.kept
            self._file(name)
        return slot

    def _reserve(self, wanted: Demand) -> tuple[frozenset[str], float]:
        """Return the nodes that a cohort without room will have first, and when; none if never."""
        now = clock.monotonic()
        times = sorted((each.free_from(wanted.resources, now), name) for name, each in self._nodes.items())
        first = [(at, name) for at, name in times[: wanted.resources.nodes] if at < math.inf]
        if len(first) < wanted.resources.nodes:
            return frozenset(), math.inf
        return frozenset(name for _, name in first), first[-1][0]
