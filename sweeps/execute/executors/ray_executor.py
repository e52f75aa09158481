"""Executor of jobs on Ray: one task per node, which starts a new process; multi-node steps run as gangs."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache
from typing import Any

from sweeps.execute.executors.fork_server import ForkServer
from sweeps.execute.executors.ranks import free_port, ranks_of
from sweeps.execute.executors.ray_cluster import cluster_misfit, cluster_nodes, lost_own_process, start_ray
from sweeps.execute.jobs import AttemptOutcome, Job
from sweeps.spec.resources import GPU_SHARE, Resources
from sweeps.store.outcomes import Ending, ending_of, error_line
from sweeps.store.store import Store

LIVENESS_SECONDS = 3.0
"""Seconds between two checks of the cluster and its nodes."""
SURPLUS = 0.25
"""Share of a cluster's resources that is requested in excess, so that an autoscaler adds nodes."""


class ClusterLostError(RuntimeError):
    """Raised if no node is left."""


class RayExecutor:
    """Executor that runs each job as Ray tasks without retries, which the scheduler decides."""

    def __init__(self, store: Store, *, address: str = "local", cores: int | None = None) -> None:
        self.ray, self.store = start_ray(address, cores), store
        self.local, self.lost = address == "local", False
        self.running: dict[Any, Job | Gang] = {}
        """Job or gang of each outstanding reference."""
        self.nodes, self.seen = cluster_nodes(self.ray), time.monotonic()
        self.usual = Resources(gpus=GPU_SHARE if any(node.gpus for node in self.nodes) else 0)
        there = sum(node.holds(self.usual) for node in self.nodes if node.count == 1)
        self.slots = max(1, min(cores or there, there))

    def misfit(self, resources: Resources) -> str | None:
        return cluster_misfit(self.nodes, resources)

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

    def wait(self, seconds: float) -> list[AttemptOutcome]:
        self._look()
        if not self.running:
            time.sleep(seconds)
            return []
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        return [outcome for reference in ready for outcome in self._outcomes(reference)]

    def drop(self, job: Job) -> None:
        """Drop it; its process stops by itself, as canceling a task that is just ending can abort Ray."""
        for owner in list(self.running.values()):
            if owner is job or (isinstance(owner, Gang) and owner.job is job):
                self._forget(owner)

    def _forget(self, owner: Job | Gang) -> None:
        self.running = {each: of for each, of in self.running.items() if of is not owner}
        if isinstance(owner, Gang):
            owner.end()

    def close(self) -> None:
        """Ask all jobs to stop with a checkpoint; end those that do not after a while."""
        if self.lost:
            return  # the cluster does not answer
        with suppress(Exception):  # the cluster may have gone
            grace = max((job.grace for job in self._jobs()), default=0.0)
            for reference in self.running:
                self.ray.cancel(reference)
            if self.running:
                self.ray.wait(list(self.running), num_returns=len(self.running), timeout=grace)
        self.ray.shutdown()

    def _jobs(self) -> list[Job]:
        owners = {id(owner): owner for owner in self.running.values()}
        return [owner.job if isinstance(owner, Gang) else owner for owner in owners.values()]

    def _look(self) -> None:
        """Update the nodes of the cluster periodically.

        Raises:
            ClusterLostError: if none is left, or the local cluster has died, which a process cannot restart.
        """
        if time.monotonic() - self.seen < LIVENESS_SECONDS:
            return
        self.seen = time.monotonic()
        if not (self.local and lost_own_process(self.ray)):
            self.nodes = cluster_nodes(self.ray)
            if any(node.count == 1 for node in self.nodes):
                return
        self.lost = True
        raise ClusterLostError("Ray has died; finished steps are kept, and the same command continues")

    def _outcomes(self, reference: Any) -> list[AttemptOutcome]:
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
            found = job.all_ended(ending_of(cause), error_line(cause))
        except self.ray.exceptions.OutOfMemoryError as error:
            found = job.all_ended(Ending.MEMORY, error_line(error))
        except self.ray.exceptions.RuntimeEnvSetupError as error:
            found = job.all_ended(Ending.UNSTARTED, error_line(error))
        except self.ray.exceptions.RayError as error:
            found = job.all_ended(
                Ending.LOST, f"its process or node was lost ({error_line(error)})", gone=False
            )
        self._forget(owner)
        return list(found)


class Gang:
    """Job on several processes: a placement group, then a rendezvous address, then the work."""

    def __init__(self, ray: Any, store: Store, job: Job) -> None:
        self.ray, self.store, self.job = ray, store, job
        self.stage = 0

    def begin(self) -> list[Any]:
        """Request the placement group."""
        from ray.util import placement_group

        resources = self.job.resources
        bundle = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
        strategy = "STRICT_SPREAD" if resources.nodes > 1 else "STRICT_PACK"
        self.group = placement_group([bundle] * resources.nodes, strategy=strategy)
        return [self.group.ready()]

    def go_on(self, found: Any) -> list[Any]:
        """Return the references of the next stage, after ``found``; none once the work is running."""
        self.stage += 1
        if self.stage == 1:
            return [self._task(0)(_meeting_point).remote()]
        if self.stage == 2:
            return [
                self._task(node)(_run_elsewhere).remote(self.store.url, self.job.as_json(), ranks)
                for node, ranks in enumerate(ranks_of(self.job.resources, *found, each=self.job.processes))
            ]
        return []

    def end(self) -> None:
        """Remove the placement group."""
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


def _meeting_point() -> tuple[str, int]:
    """Return the address of this node, and a free port on it."""
    import ray

    return ray.util.get_node_ip_address(), free_port()


def _run_elsewhere(
    root: str, job: dict[str, Any], ranks: list[dict[str, str]] | None = None
) -> list[AttemptOutcome]:
    """Run a job in a Ray task, whose process is reused; the processes it starts are new."""
    if not _forker().alive:
        _forker.cache_clear()
    devices = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ}
    return _forker().run(Store(root), Job.from_json(job), [devices | rank for rank in ranks or [{}]])


@cache
def _forker() -> ForkServer:
    return ForkServer()
