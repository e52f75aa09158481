"""Requests for nodes that a Ray cluster's autoscaler may add.

Jobs are submitted to nodes that have room, so that Ray alone would not know of those that wait. A request is
a placement group of a waiting job's size that the nodes known at the time may not hold: it stays pending,
which an autoscaler counts as demand, takes nothing from running jobs, and ends with the driver.
(``ray.autoscaler.sdk.request_resources`` would outlive a driver that is killed, and so would its nodes.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

from sweeps.execute.executors.job_placement import NodeCapacity
from sweeps.spec.resources import Resources

NODE_ID = "ray.io/node-id"
"""Label of every node, with its id."""
SURPLUS = 0.25
"""Share of a cluster's resources that is requested in excess."""
MOST_REQUESTS = 32
"""Largest number of requests at a time."""


def bundles_of(resources: Resources) -> list[dict[str, float]]:
    """Return the resources of a job on each of its nodes, as Ray names them."""
    bundle = {"CPU": float(resources.cpus)} | ({"GPU": resources.gpus} if resources.gpus else {})
    return [bundle] * resources.nodes


def strategy_of(resources: Resources) -> str:
    """Return Ray's strategy for a job: every bundle on a node of its own."""
    return "STRICT_SPREAD" if resources.nodes > 1 else "STRICT_PACK"


def within_surplus(waiting: Sequence[Resources], nodes: Sequence[NodeCapacity]) -> list[Resources]:
    """Return the first of the waiting jobs that ask together for no more than the surplus; one at least."""
    cpus = accumulate(each.cpus * each.nodes for each in waiting)
    gpus = accumulate(each.gpus * each.nodes for each in waiting)
    most_cpus = SURPLUS * sum(node.cpus for node in nodes)
    most_gpus = SURPLUS * sum(node.gpus for node in nodes)
    count = sum(c <= most_cpus and g <= most_gpus for c, g in zip(cpus, gpus, strict=True))
    return list(waiting[: min(MOST_REQUESTS, max(1, count))])


class NodeRequests:
    """Pending requests of one driver."""

    def __init__(self) -> None:
        self.pending: list[tuple[Resources, Any]] = []

    def update(self, waiting: Sequence[Resources], nodes: Sequence[NodeCapacity]) -> None:
        """Request nodes for the first of the jobs that wait, and withdraw what is fulfilled or not needed."""
        from ray.util import placement_group

        wanted = Counter(within_surplus(waiting, nodes))
        kept = []
        for resources, group in self.pending:
            if wanted[resources] and not _fulfilled(group):
                wanted[resources] -= 1
                kept.append((resources, group))
            else:
                _remove(group)
        others = f"!in({','.join(node.name for node in nodes)})"
        for resources in wanted.elements():
            selectors = [{NODE_ID: others}] * resources.nodes if nodes else None
            group = placement_group(
                bundles_of(resources), strategy=strategy_of(resources), bundle_label_selector=selectors
            )
            kept.append((resources, group))
        self.pending = kept

    def withdraw(self) -> None:
        """Withdraw all requests."""
        _remove(*(group for _, group in self.pending))
        self.pending = []


def _fulfilled(group: Any) -> bool:
    from ray.util import placement_group_table

    return bool(placement_group_table(group).get("state") != "PENDING")


def _remove(*groups: Any) -> None:
    from ray.util import remove_placement_group

    for group in groups:
        with suppress(Exception):  # the cluster may have gone
            remove_placement_group(group)
