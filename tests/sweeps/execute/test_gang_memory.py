"""Memory that runs out in one process of a gang: the gang ends, and the next attempt takes half as much."""

from __future__ import annotations

import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sweeps.dag.step import Step
from sweeps.estimate.memory.layout import DeviceKind
from sweeps.execute.steps import gang_layout
from sweeps.execute.steps.step import run_step, run_steps
from sweeps.model.decoder import DecoderLayer
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.leases import attempts
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def run_out(after: int) -> None:
    """Let this process's memory run out where it trains on two blocks at once, after so many calls."""
    forward, calls = DecoderLayer.forward, iter(range(after))

    def limited(layer: DecoderLayer, x: Tensor, *given: Any) -> Tensor:
        if torch.is_grad_enabled() and len(x) == 2 and next(calls, None) is None:
            raise torch.OutOfMemoryError(FULL)
        return forward(layer, x, *given)

    DecoderLayer.forward = limited  # type: ignore[method-assign]


def join(rank: int, port: str, root: Path, step: Step, ended: Any) -> None:
    """Attempt a step as one of two processes, in the second of which memory runs out."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    gang_layout.device_here = lambda share: DeviceKind(name=["one", "another"][rank])
    if rank:
        run_out(after=5)
    ((_, result),) = run_steps(Store(root), [step])
    ended.put(str(result) if isinstance(result, Exception) else "")
    ended.close()
    ended.join_thread()
    os._exit(0)  # as jobs do: what the other process waits for is gone


def attempt(root: Path, step: Step) -> list[str]:
    """Return the errors of two processes that attempt a step, empty if there is none."""
    import torch._dynamo  # noqa: F401  (which each process would import again)

    context, port = multiprocessing.get_context("fork"), free_port()
    ended = context.Queue()
    gang = [context.Process(target=join, args=(rank, port, root, step, ended)) for rank in range(2)]
    for member in gang:
        member.start()
    found = [ended.get(timeout=120) for _ in gang]
    for member in gang:
        member.join(60)
    return found


def step_of(spec: dict[str, Any], *, shard: bool) -> Step:
    grids = {"supervised": [{"params": ["3k"], "tokens": ["64k"]}], "teachers": [], "students": []}
    rules = spec["training"] | {"batch_tokens": 128, "warmup_tokens": 320, "shard": shard}
    (step,) = dag_of(parse_sweep(spec | grids | {"training": rules})).steps
    return replace(step, steps=20)


def test_all_processes_halve_micro_batches_after_memory_ran_out_in_one(
    small_spec: dict[str, Any], own_cache: Path, tmp_path: Path
) -> None:
    replicated, sharded = (step_of(small_spec, shard=shard) for shard in (False, True))
    roots = [tmp_path / name for name in ("replicated", "sharded", "alone")]
    for root in roots:
        Store(root).create()
    why = f"process 1 of 2: memory ran out with its share of a batch in one piece: {FULL}"
    assert attempt(roots[0], replicated) == ["", ""]
    assert attempt(roots[1], sharded) == [why, why]
    assert attempt(roots[1], sharded) == ["", ""]

    first, second = attempts(Store(roots[1]), sharded.id)
    assert (first.ending, first.told["reason"]) == (Ending.MEMORY, why)
    assert second.ending is Ending.DONE
    alone = run_step(Store(roots[2]), replicated)
    for root, layout in ((roots[0], None), (roots[1], 32.0)):
        result = Store(root).result(replicated.id) or {}
        assert result["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert result["pieces"] == 2
        assert result["layout"]["micro_batch_tokens"] == layout
        assert "of several kinds of GPU (1 x one, 1 x another)" in result["layout"]["reason"]
    assert result["layout"]["reason"].endswith("; micro-batches are halved, as memory ran out once before")
