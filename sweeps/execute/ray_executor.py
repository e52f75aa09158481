"""Jobs on Ray: a task a node, in which a fresh process works; steps of several nodes run as gangs."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from functools import cache
from typing import Any

from sweeps.execute.fork_server import GRACE_SECONDS, Forker
from sweeps.execute.jobs import Job, Outcome
from sweeps.execute.ray_cluster import lost_own_process, misfit, nodes, start_ray
from sweeps.spec.resources import GPU_SHARE, Resources
from sweeps.store.outcomes import Ending, ending_of, reason_of
from sweeps.store.store import Store

LIVENESS_SECONDS = 3.0
"""Between two looks at whether the cluster lives and what nodes it has."""
SURPLUS = 0.25
"""Share of a cluster's resources that is asked for beyond what it has, so that an autoscaler adds some."""


class ClusterLostError(RuntimeError):
    """No node is left to run anything on."""


class Ray:
    """Runs each job as plain Ray tasks, never retried by Ray: the sweep itself decides about that."""

    def __init__(self, store: Store, *, address: str = "local", cores: int | None = None) -> None:
        self.ray, self.store = start_ray(address, cores), store
        self.local, self.lost = address == "local", False
        self.running: dict[Any, Job | Gang] = {}
        """What each outstanding reference is about."""
        self.nodes, self.seen = nodes(self.ray), time.monotonic()
        self.usual = Resources(gpus=GPU_SHARE if any(node.gpus for node in self.nodes) else 0)
        there = sum(node.holds(self.usual) for node in self.nodes if node.count == 1)
        self.slots = max(1, min(cores or there, there))

    def misfit(self, resources: Resources) -> str | None:
        return misfit(self.nodes, resources)

    def room(self, resources: Resources) -> bool:
        self._look()
        asked = [job.resources for job in self._jobs()] + [resources]
        total = self.ray.cluster_resources()
        share = 1.0 if self.local else 1.0 + SURPLUS
        cpus = sum(each.cpus * each.nodes for each in asked)
        gpus = sum(each.gpus * each.nodes for each in asked)
        spare = 0 if self.local else 1
        return bool(
            (cpus <= share * total.get("CPU", 0) and gpus <= share * total.get("GPU", 0))
            or len(asked) <= spare
        )

    def submit(self, job: Job) -> None:
        if job.resources.gang:
            gang = Gang(self.ray, self.store, job)
            self.running |= dict.fromkeys(gang.begin(), gang)
            return
        task = self.ray.remote(max_retries=0, num_cpus=job.resources.cpus, num_gpus=job.resources.gpus)
        self.running[task(_run_elsewhere).remote(self.store.url, job.as_json())] = job

    def wait(self, seconds: float) -> list[Outcome]:
        self._look()
        if not self.running:
            time.sleep(seconds)
            return []
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        return [outcome for reference in ready for outcome in self._outcomes(reference)]

    def drop(self, job: Job) -> None:
        """Forget it. Its process finds out by itself: to cancel a task that is just ending can abort Ray."""
        for owner in list(self.running.values()):
            if owner is job or (isinstance(owner, Gang) and owner.job is job):
                self._forget(owner)

    def _forget(self, owner: Job | Gang) -> None:
        self.running = {each: of for each, of in self.running.items() if of is not owner}
        if isinstance(owner, Gang):
            owner.end()

    def close(self) -> None:
        """Ask all to stop, so that they write a checkpoint; after a while, end them."""
        if self.lost:
            return  # nobody would answer
        with suppress(Exception):  # a cluster that is no more
            for reference in self.running:
                self.ray.cancel(reference)
            if self.running:
                self.ray.wait(list(self.running), num_returns=len(self.running), timeout=GRACE_SECONDS)
        self.ray.shutdown()

    def _jobs(self) -> list[Job]:
        owners = {id(owner): owner for owner in self.running.values()}
        return [owner.job if isinstance(owner, Gang) else owner for owner in owners.values()]

    def _look(self) -> None:
        """See now and then what nodes there are.

        Raises:
            ClusterLostError: if none is left, or a cluster of our own is broken; Ray cannot be mended from
                inside a process that uses it.
        """
        if time.monotonic() - self.seen < LIVENESS_SECONDS:
            return
        self.seen = time.monotonic()
        if not (self.local and lost_own_process(self.ray)):
            self.nodes = nodes(self.ray)
            if any(node.count == 1 for node in self.nodes):
                return
        self.lost = True
        raise ClusterLostError("Ray has died; what is done is kept, the same command goes on")

    def _outcomes(self, reference: Any) -> list[Outcome]:
        owner = self.running.get(reference)
        if owner is None:  # dropped with its gang a moment ago
            return []
        job = owner.job if isinstance(owner, Gang) else owner
        try:
            found = self.ray.get(reference)
            if isinstance(owner, Gang) and ((more := owner.go_on(found)) or not found):
                del self.running[reference]
                self.running |= dict.fromkeys(more, owner)
                return []
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            found = job.all_ended(ending_of(cause), reason_of(cause))
        except self.ray.exceptions.OutOfMemoryError as error:
            found = job.all_ended(Ending.MEMORY, reason_of(error))
        except self.ray.exceptions.RuntimeEnvSetupError as error:
            found = job.all_ended(Ending.UNSTARTED, reason_of(error))
        except self.ray.exceptions.RayError as error:
            found = job.all_ended(
                Ending.LOST, f"its process or node is gone ({reason_of(error)})", gone=False
            )
        self._forget(owner)
        return list(found)


class Gang:
    """A job on several processes: a place for all of them at once, then a meeting point, then the work."""

    def __init__(self, ray: Any, store: Store, job: Job) -> None:
        self.ray, self.store, self.job = ray, store, job
        self.stage = 0

    def begin(self) -> list[Any]:
        """Ask for the place."""
        from ray.util import placement_group

        resources = self.job.resources
        bundle = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
        strategy = "STRICT_SPREAD" if resources.nodes > 1 else "STRICT_PACK"
        self.group = placement_group([bundle] * resources.nodes, strategy=strategy)
        return [self.group.ready()]

    def go_on(self, found: Any) -> list[Any]:
        """What to wait for next, after ``found``: nothing more once the work itself is under way."""
        self.stage += 1
        if self.stage == 1:
            return [self._task(0)(_meeting_point).remote()]
        if self.stage == 2:
            return [
                self._task(node)(_run_elsewhere).remote(self.store.url, self.job.as_json(), ranks)
                for node, ranks in enumerate(ranks_of(self.job.resources, *found))
            ]
        return []

    def end(self) -> None:
        """Give the place back."""
        from ray.util import remove_placement_group

        with suppress(Exception):
            remove_placement_group(self.group)

    def _task(self, node: int) -> Any:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        return self.ray.remote(
            max_retries=0,
            num_cpus=self.job.resources.cpus,
            num_gpus=self.job.resources.gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                self.group, placement_group_bundle_index=node
            ),
        )


def ranks_of(resources: Resources, host: str, port: int) -> list[list[dict[str, str]]]:
    """What the processes of each node are told, in the variables of ``torchrun``."""
    each, size = resources.processes, resources.nodes * resources.processes
    return [
        [
            {
                "RANK": str(node * each + local),
                "LOCAL_RANK": str(local),
                "WORLD_SIZE": str(size),
                "MASTER_ADDR": host,
                "MASTER_PORT": str(port),
            }
            for local in range(each)
        ]
        for node in range(resources.nodes)
    ]


def _meeting_point() -> tuple[str, int]:
    """The address of this node, and a port that is free on it."""
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        return ray.util.get_node_ip_address(), probe.getsockname()[1]


def _run_elsewhere(
    root: str, job: dict[str, Any], ranks: list[dict[str, str]] | None = None
) -> list[Outcome]:
    """The body of a Ray task. Its process is used again; what it starts is fresh."""
    if not _forker().alive:
        _forker.cache_clear()
    devices = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ}
    return _forker().run(Store(root), Job.from_json(job), [devices | rank for rank in ranks or [{}]])


@cache
def _forker() -> Forker:
    return Forker()
