"""Twenty nodes of a real Ray on this machine: gangs beside small steps, a node that lies, and one that is lost.

The GPUs are logical. Twenty nodes take 10 GB of memory and two cores for minutes; ``DISTLAW_TEST_NODES`` sets another number.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.execute.executors.ray_executor import RayExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.state import State
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.leases import attempts
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store

NODES = int(os.environ.get("DISTLAW_TEST_NODES", "20"))
GANG = 4
"""Nodes of a step of the larger model."""


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that runs nothing, honest nodes of one core and one GPU, and the last, whose GPU PyTorch misses."""
    from ray.cluster_utils import Cluster

    small = {"include_dashboard": False, "object_store_memory": 10**8}
    found = Cluster(initialize_head=True, head_node_args=small | {"num_cpus": 0, "num_gpus": 0})
    for number in range(NODES):
        lies = {"env_vars": {"DISTLAW_LOGICAL_GPUS": ""}} if number == NODES - 1 else {}
        found.add_node(num_cpus=1, num_gpus=1, object_store_memory=10**8, **lies)
    yield found
    found.shutdown()


@pytest.mark.slow
@pytest.mark.ray
def test_gangs_and_small_steps_on_many_nodes(
    small_spec: dict[str, Any], cluster: Any, tmp_path: Path, own_cache: Path
) -> None:
    """All is done once; gangs start before the small steps have ended; the liar and the dead node are avoided."""
    small_spec |= {"teachers": [], "students": []}
    small_spec["training"] |= {"batch_tokens": small_spec["corpus"]["context"] * GANG}
    small_spec["resources"] = [{"gpus": 1}, {"from_params": "5k", "gpus": 1, "nodes": GANG}]
    small_spec["supervised"] = [
        {"params": ["3k"], "tokens": ["64k"], "seeds": list(range(NODES + 4))},
        {"params": ["7k"], "tokens": ["64k"], "seeds": [0, 1]},
    ]
    sweep = parse_sweep(small_spec)
    dag, store = dag_of(sweep), Store(tmp_path / "store")
    store.create()
    executor = RayExecutor(store, address=cluster.address)
    gangs = {step.id for step in dag.steps if step.shape.params > 5e3}
    lost: list[str] = []
    before_gangs: list[int] = []

    def watch(state: State) -> None:
        under_way = [each for each in state.running.values() if each.step.id in gangs]
        for each in under_way:
            if not lost and store.read(each.step.id, "step.json"):
                (node,) = (node for node in cluster.list_all_nodes() if node.node_id == each.job.nodes[-1])
                lost.append(node.node_id)
                cluster.remove_node(node, allow_graceful=False)
        if gangs <= state.done and not before_gangs:
            before_gangs.append(len(state.done - gangs))

    try:
        state = run(dag, store, executor, lambda step: step.flops / 1e8, watch, sweep)
        assert lost
        assert lost[0] not in [node.name for node in executor.placement.nodes]
    finally:
        executor.close()
    assert state.complete
    assert before_gangs[0] < NODES + 4  # small steps did not go before them
    avoided = [trouble for trouble in state.troubles if "avoided for 60 minutes" in trouble]
    assert len(avoided) == 1
    assert "lacks GPUs that it announces" in avoided[0]
    endings = Counter(each.ending for step in dag.steps for each in attempts(store, step.id))
    assert endings[Ending.DONE] == len(dag.steps)  # none twice
    assert endings[Ending.UNSTARTED] >= 1
