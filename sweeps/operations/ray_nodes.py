"""Facts about every node of a Ray cluster, gathered by a task on each."""

from __future__ import annotations

import os
from typing import Any

from sweeps.execute.executors.ray_cluster import start_ray
from sweeps.operations.node_facts import node_facts

NODE_SECONDS = 120.0
"""Seconds that a node has to answer."""


def facts_of_nodes(address: str, store: str) -> list[tuple[dict[str, Any], float]]:
    """Return the facts of each node that runs steps, with the GPUs that Ray believes it has.

    Raises:
        InputError: for an address that leads nowhere.
    """
    ray = start_ray(address, None)
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    try:
        asked = []
        for node in ray.nodes():
            resources = node["Resources"]
            if node["Alive"] and (resources.get("CPU") or resources.get("GPU")):
                gpus = resources.get("GPU", 0.0)
                here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                task = ray.remote(max_retries=0, num_cpus=0, num_gpus=0, scheduling_strategy=here)(_facts)
                asked.append((node["NodeManagerHostname"], gpus, task.remote(store)))
        return [(_answer(ray, host, answer), gpus) for host, gpus, answer in asked]
    finally:
        ray.shutdown()


def _facts(store: str) -> dict[str, Any]:
    """Return the facts of the node of this task, from which Ray hides GPUs as it asked for none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        del os.environ["CUDA_VISIBLE_DEVICES"]
    return node_facts(store)


def _answer(ray: Any, host: str, answer: Any) -> dict[str, Any]:
    """Return what a node answered; of one that did not, its fault."""
    try:
        found: dict[str, Any] = ray.get(answer, timeout=NODE_SECONDS)
    except Exception as error:
        why = str(error).strip().splitlines() or [type(error).__name__]
        return {
            "host": host,
            "versions": {},
            "gpus": [],
            "gpus_told": 0,
            "gpu_bytes": None,
            "cache": "its cache",
            "cache_free": None,
            "store_fault": f"the node did not answer ({why[-1]})",
        }
    return found
