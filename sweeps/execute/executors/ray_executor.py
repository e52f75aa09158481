"""Executor of jobs on Ray: one task per node, which starts a new process; multi-node steps run as gangs.

The scheduler chooses the nodes, as it knows how long its jobs take and which come next: Ray, whose queue has
no order, may let small tasks overtake a gang for ever. Ray has the last word, as others may use the cluster:
a task whose node has no room starts elsewhere, and so does a gang after a while.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

from sweeps.execute.executors.fork_server import ForkServer
from sweeps.execute.executors.job_placement import JobPlacement
from sweeps.execute.executors.mps import sharing_environment
from sweeps.execute.executors.ranks import free_port, ranks_of
from sweeps.execute.executors.ray_cluster import (
    cluster_gpu,
    cluster_misfit,
    cluster_nodes,
    connect,
    living_nodes,
    lost_own_process,
)
from sweeps.execute.executors.ray_requests import NODE_ID, NodeRequests, bundles_of, strategy_of
from sweeps.execute.jobs import AttemptOutcome, Job
from sweeps.spec.resources import GPU_SHARE, Resources
from sweeps.store.outcomes import Ending, ending_of, error_line
from sweeps.store.store import Store

LIVENESS_SECONDS = 3.0
"""Seconds between two checks of the cluster and its nodes."""
GANG_SECONDS = 60.0
"""Seconds for which a gang waits for the nodes that were chosen for it, before any will do."""


class ClusterLostError(RuntimeError):
    """Raised if no node is left."""


class RayExecutor:
    """Executor that runs each job as Ray tasks without retries, which the scheduler decides."""

    def __init__(self, store: Store, *, address: str = "local", cores: int | None = None) -> None:
        (self.ray, self.dashboard), self.store = connect(address, cores), store
        self.local, self.lost = address == "local", False
        self.running: dict[Any, Job | Gang] = {}
        """Job or gang of each outstanding reference."""
        self.placement, self.requests = JobPlacement(), NodeRequests()
        self.cores = cores
        self._read_nodes()

    def misfit(self, resources: Resources) -> str | None:
        return cluster_misfit(self.nodes, resources)

    def submit(self, job: Job) -> None:
        if job.resources.gang:
            gang = Gang(self.ray, self.store, job)
            self.running |= dict.fromkeys(gang.begin(), gang)
            return
        where: dict[str, Any] = {}
        if len(self.placement.nodes) > 1:
            where = {"label_selector": {NODE_ID: job.nodes[0]}, "fallback_strategy": [{"label_selector": {}}]}
        asked = {"num_cpus": job.resources.cpus, "num_gpus": job.resources.gpus}
        task = self.ray.remote(max_retries=0, **asked, **where)
        self.running[task(_run_elsewhere).remote(self.store.url, job.as_json())] = job

    def wait(self, seconds: float) -> list[AttemptOutcome]:
        self._look()
        if not self.running:
            time.sleep(seconds)
            return []
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        found = [outcome for reference in ready for outcome in self._outcomes(reference)]
        if not self.seen:
            self._look()  # so that nothing is placed on a node that was lost
        return found

    def drop(self, job: Job) -> None:
        """Drop it; its process stops by itself, as canceling a task that is just ending can abort Ray."""
        for owner in list(self.running.values()):
            if owner is job or (isinstance(owner, Gang) and owner.job is job):
                self._forget(owner)

    def _forget(self, owner: Job | Gang) -> None:
        self.running = {each: of for each, of in self.running.items() if of is not owner}
        if isinstance(owner, Gang):
            owner.end()
        self.placement.release(owner.job.name if isinstance(owner, Gang) else owner.name)

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
        if self.seen and time.monotonic() - self.seen < LIVENESS_SECONDS:
            return
        if not (self.local and lost_own_process(self.ray)):
            self._read_nodes()
            if self.placement.nodes:
                self._free_waiting_gangs()
                if not self.local:
                    self.requests.update(self.placement.short, self.placement.nodes)
                return
        self.lost = True
        raise ClusterLostError("Ray has died; finished steps are kept, and the same command continues")

    def _read_nodes(self) -> None:
        self.seen = time.monotonic()
        self.nodes, self.gpu = cluster_nodes(self.ray), cluster_gpu(self.ray)
        self.placement.update(living_nodes(self.ray))
        self.usual = Resources(gpus=GPU_SHARE if any(node.gpus for node in self.nodes) else 0)
        there = sum(node.holds(self.usual) for node in self.nodes if node.count == 1)
        self.slots = max(1, min(self.cores or there, there))

    def _free_waiting_gangs(self) -> None:
        """Let gangs start anywhere whose nodes others use."""
        gangs = {id(owner): owner for owner in self.running.values() if isinstance(owner, Gang)}
        for gang in gangs.values():
            if gang.waits_for_nodes:
                self.running = {each: of for each, of in self.running.items() if of is not gang}
                gang.end()
                self.running |= dict.fromkeys(gang.begin(anywhere=True), gang)

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
            self.seen = 0.0
        self._forget(owner)
        return list(found)


class Gang:
    """Job on several processes: a placement group, then a rendezvous address, then the work."""

    def __init__(self, ray: Any, store: Store, job: Job) -> None:
        self.ray, self.store, self.job = ray, store, job
        self.stage = 0

    def begin(self, *, anywhere: bool = False) -> list[Any]:
        """Request the placement group, on the nodes that were chosen or anywhere."""
        from ray.util import placement_group

        self.stage, self.since, self.anywhere = 0, time.monotonic(), anywhere
        resources = self.job.resources
        chosen = None if anywhere else [{NODE_ID: node} for node in self.job.nodes]
        self.group = placement_group(
            bundles_of(resources), strategy=strategy_of(resources), bundle_label_selector=chosen
        )
        return [self.group.ready()]

    @property
    def waits_for_nodes(self) -> bool:
        """True if it has waited long for the nodes that were chosen for it."""
        waits = self.stage == 0 and not self.anywhere
        return waits and time.monotonic() - self.since > GANG_SECONDS

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
    import ray

    if not _forker().alive:
        _forker.cache_clear()
    work = Job.from_json(job)
    devices = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ}
    devices |= sharing_environment(work.resources.gpus)
    found = _forker().run(Store(root), work, [devices | rank for rank in ranks or [{}]])
    return [replace(each, node=ray.get_runtime_context().get_node_id()) for each in found]


@cache
def _forker() -> ForkServer:
    return ForkServer()
