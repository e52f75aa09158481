"""The server that forks a process for every job outlives its client for a moment, to record how the job ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.execute.executors.job_placement import Demand
from sweeps.execute.executors.local import ProcessExecutor
from sweeps.execute.jobs import AttemptOutcome, Job, record_end
from sweeps.resolve import dag_of
from sweeps.spec.resources import Resources
from sweeps.spec.spec import parse_sweep
from sweeps.store.leases import Lease, attempts
from sweeps.store.outcomes import Ending
from sweeps.store.processes import process_start_ticks
from sweeps.store.store import Store

pytestmark = pytest.mark.alone

CLIENT = """
import json, sys, time
from sweeps.execute.executors.fork_server import ForkServer
from sweeps.execute.jobs import Job
from sweeps.store.store import Store
store, job = Store(sys.argv[1]), Job.from_json(json.loads(sys.argv[2]))
server = ForkServer()
server.start(store, job)
while not server.pids:
    server.outcomes()
print(time.monotonic(), *server.pids, server.process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.create()
    return store


@pytest.fixture
def job(small_spec: dict[str, Any], own_cache: Path) -> Job:
    """One step that takes longer than any test waits."""
    small_spec |= {"supervised": [{"params": ["3k"], "tokens": ["4M"]}], "teachers": [], "students": []}
    (step,) = dag_of(parse_sweep(small_spec)).steps
    return Job(steps=(step,), numbers=(1,), resources=Resources(), driver="d.json", time_limit=300.0)


def awaited(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_a_killed_client_s_job_is_ended_and_counted_to_its_end(store: Store, job: Job) -> None:
    """Even if its process is stopped, so that it could record nothing, for longer than a heartbeat."""
    step = job.steps[0].id
    command = [sys.executable, "-c", CLIENT, store.root, json.dumps(job.as_json())]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout
        seen, worker, server = client.stdout.readline().split()
        ticks = {int(pid): process_start_ticks(int(pid)) for pid in (worker, server)}
        assert all(ticks.values())
        awaited(lambda: attempts(store, step) and attempts(store, step)[0].done)
        os.kill(int(worker), signal.SIGSTOP)
        time.sleep(1.5)
        client.kill()
        lived = time.monotonic() - float(seen)
    awaited(lambda: all(process_start_ticks(pid) != since for pid, since in ticks.items()), 30)
    (attempt,) = attempts(store, step)
    assert attempt.ending is Ending.LOST
    assert attempt.settled
    assert lived <= attempt.seconds < lived + 15.0
    assert attempt.told["unheard"] >= 1.5 - 0.6


def test_a_dropped_job_is_counted_to_its_end(store: Store, job: Job) -> None:
    executor = ProcessExecutor(store, 1)
    (slot,) = executor.placement.choose(deque([job.steps]), lambda _: Demand(job.resources, 1.0))
    job = replace(job, name=slot.job, nodes=slot.nodes)
    executor.submit(job)
    awaited(lambda: executor.wait(0.05) or attempts(store, job.steps[0].id))
    executor.drop(job)
    (attempt,) = attempts(store, job.steps[0].id)
    assert attempt.ending is Ending.LOST
    assert attempt.settled
    assert attempt.told["lived"] > 0.0
    executor.close()


@pytest.mark.parametrize("lived", [None, 7.0])
def test_an_end_is_recorded_for_an_attempt_of_the_same_job_only(
    lived: float | None, store: Store, job: Job
) -> None:
    step = job.steps[0].id
    outcome = AttemptOutcome(step, 1, Ending.LOST, "killed", lived=lived)
    assert Lease.claim(store, step, 1, job="another")
    record_end(store, job, outcome)
    assert attempts(store, step)[0].ending is None
    for number in (2, 3):
        outcome = AttemptOutcome(step, number, Ending.LOST, "killed", number == 2, lived)
        if number == 3:
            assert Lease.claim(store, step, number, job=job.name)
        record_end(store, job, outcome)
    never_started, alive = attempts(store, step)[1:]
    assert never_started.seconds == (lived or 0.0)
    assert never_started.told["members"] == 1
    assert alive.ending is None
