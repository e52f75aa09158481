"""A cache that two processes of one step write together, and the student that reads it."""

from __future__ import annotations

import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeps.dag.step import Step
from sweeps.distill.caches import shard_cache
from sweeps.distill.caches.shard_cache import ShardCache
from sweeps.execute.steps.step import run_step, run_steps
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store


def _one_of_two(rank: int, port: int, root: Path, step: Step, written: Any) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    write = ShardCache._write_now

    def counted(cache: ShardCache, shard: int, *given: Any) -> None:
        written.put(shard)
        write(cache, shard, *given)

    ShardCache._write_now = counted  # type: ignore[method-assign]
    list(run_steps(Store(root), [step]))
    os._exit(0)


def _written_by_two(root: Path, step: Step) -> list[int]:
    """Let two processes write a cache; return the shards that each wrote by itself, one after the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    written = context.SimpleQueue()
    gang = [context.Process(target=_one_of_two, args=(rank, port, root, step, written)) for rank in range(2)]
    for member in gang:
        member.start()
    for member in gang:
        member.join(240)
    assert [member.exitcode for member in gang] == [0, 0]
    return [written.get() for _ in iter(lambda: written.empty(), True)]


def test_two_processes_write_a_cache_of_draws_together(
    small_spec: dict[str, Any], tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_cache, "SHARD_BYTES", 20_000)
    small_spec |= {
        "supervised": [],
        "teachers": [{"params": ["3k"], "tokens": ["32k"]}],
        "students": [{"params": ["3k"], "tokens": ["32k"]}],
        "methods": [{"logits": "sampled", "draws": 12}],
    }
    teacher, cache, student = dag_of(parse_sweep(small_spec)).steps
    store = Store(tmp_path)
    run_step(store, teacher)
    by_each = _written_by_two(tmp_path, cache)
    folder = tmp_path / cache.id / "logits"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(by_each) == list(range(len(files)))  # each once, and no claims are left
    assert (store.result(cache.id) or {})["tokens"] == 32_000
    for name in ("00000.bin", "00007.bin", f"{len(files) - 1:05d}.bin"):  # the last one is shorter
        (folder / name).unlink()
    (tmp_path / cache.id / "result.json").unlink()
    sharded = cache.training.model_copy(update={"shard": True})
    assert _written_by_two(tmp_path, replace(cache, training=sharded)) == []  # but together
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    store.remove_tree(cache.id)
    run_step(store, cache)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert 0 < run_step(store, student)["loss"] < 5.7
