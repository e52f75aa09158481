"""Gangs on a machine: a process that is killed or hangs ends its gang with a reason, and the step is retried."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sweeps.execute.executors.fork_server import ForkServer
from sweeps.execute.executors.ray_executor import ranks_of
from sweeps.execute.jobs import AttemptOutcome, Job, record_end
from sweeps.execute.steps.step import run_step
from sweeps.resolve import dag_of
from sweeps.spec.resources import Resources
from sweeps.spec.spec import parse_sweep
from sweeps.store.leases import attempts
from sweeps.store.outcomes import RETRIES, Ending
from sweeps.store.store import Store

pytestmark = pytest.mark.alone

TIMEOUT = 4


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    monkeypatch.setenv("DISTLAW_GANG_TIMEOUT_SECONDS", str(TIMEOUT))
    monkeypatch.setenv("DISTLAW_CHECKPOINT_SECONDS", "0.2")
    server = ForkServer()
    yield server
    server.close()


def job_of(spec: dict[str, Any], tokens: str, number: int) -> Job:
    """Return an attempt at a step that two processes train, sharded."""
    training = spec["training"] | {"batch_tokens": 128, "shard": True, "recompute": True}
    training["micro_batch_tokens"] = 32
    grids = {"supervised": [{"params": ["3k"], "tokens": [tokens]}], "teachers": [], "students": []}
    (step,) = dag_of(parse_sweep(spec | grids | {"training": training})).steps
    return Job(steps=(step,), numbers=(number,), resources=Resources())


def started(server: ForkServer, store: Store, job: Job) -> list[int]:
    """Start ``job`` as a gang of two; return their process ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (ranks,) = ranks_of(Resources(), "127.0.0.1", port, each=2)
    server.start(store, job, ranks)
    while not server.pids:
        assert not server.outcomes()
    return server.pids


def saved(store: Store, step: str, number: int) -> int:
    """Return the optimizer steps at which attempt ``number`` completed the first checkpoint that is there."""
    complete = (
        name for name in store.names(step, "checkpoints")
        if "manifest.json" in store.names(step, "checkpoints", name)
    )  # fmt: skip
    names = [name.split("-") for name in complete]
    return min((int(steps) for steps, attempt in names if attempt == f"{number:04d}"), default=0)


def ended(server: ForkServer, store: Store, job: Job) -> AttemptOutcome:
    found: list[AttemptOutcome] = []
    while server.job:
        found += server.outcomes()
    (outcome,) = found
    record_end(store, job, outcome)
    return outcome


def awaited(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_a_rank_that_hangs_or_is_killed_ends_the_gang_and_the_next_attempt_goes_on(
    server: ForkServer, small_spec: dict[str, Any], own_cache: Path, tmp_path: Path
) -> None:
    store, alone = Store(tmp_path / "store"), Store(tmp_path / "alone")
    store.create()
    reached: list[int] = []
    for number, fault in enumerate((signal.SIGSTOP, signal.SIGKILL), 1):
        job = job_of(small_spec, "4M", number)
        step = job.steps[0].id
        _, follower = started(server, store, job)
        reached.append(awaited(partial(saved, store, step, number)))
        os.kill(follower, fault)
        outcome = ended(server, store, job)
        assert outcome.ending is Ending.LOST
        assert RETRIES[outcome.ending]
        if fault is signal.SIGSTOP:
            assert outcome.reason.startswith(
                "another of the 2 processes of this step ended, or did not answer for 4 s "
                "(DISTLAW_GANG_TIMEOUT_SECONDS): "
            )
    assert attempts(store, step)[-1].ending is Ending.LOST
    assert reached[1] > reached[0], "the second attempt began at a checkpoint of the first"

    job = job_of(small_spec, "64k", 1)
    job = replace(job, steps=(replace(job.steps[0], steps=40),))
    started(server, store, job)
    assert ended(server, store, job).ending is Ending.DONE
    result = store.result(job.steps[0].id)
    assert result is not None
    assert result["layout"] == {
        "sharded": True, "micro_batch_tokens": 32.0, "recompute": True, "processes": 2,
        "reason": result["layout"]["reason"],
    }  # fmt: skip
    alone.create()
    assert result["loss"] == pytest.approx(run_step(alone, job.steps[0])["loss"], rel=1e-5)
