"""A driver that is suspended while its worker runs: under a cap the worker ends too, without one it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_drivers import believe_in_a_fast_machine

from sweeps.dag.expand import Dag
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.leases import Attempt, attempts
from sweeps.store.outcomes import Ending
from sweeps.store.processes import process_start_ticks
from sweeps.store.store import Store

pytestmark = pytest.mark.alone


@pytest.fixture
def driven(small_spec: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a driver of one step that takes long for this machine, under ``caps``."""
    started: list[subprocess.Popen[bytes]] = []

    def start(dag: Dag, **caps: float) -> subprocess.Popen[bytes]:
        believe_in_a_fast_machine(dag, tmp_path / "cache")
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump(small_spec | ({"caps": caps} if caps else {})))
        command = [sys.executable, "-m", "distlaw", "sweep", "run", str(path)]
        command += ["--store", str(tmp_path / "store"), "--executor", "process", "--cores", "1"]
        environment = os.environ | {
            "DISTLAW_CACHE": str(tmp_path / "cache"),
            "DISTLAW_CHECKPOINT_SECONDS": "0.5",
            "DISTLAW_LEASE_SECONDS": "6",
        }
        started.append(subprocess.Popen(command, env=environment))
        return started[0]

    yield start
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def trains(store: Store, step: str) -> Attempt | None:
    found = attempts(store, step)
    return found[-1] if found and found[-1].done else None


def awaited(what: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("capped", [True, False])
def test_a_suspended_driver_s_worker_ends_under_a_cap_and_goes_on_without(
    capped: bool,
    small_spec: dict[str, Any],
    driven: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
    own_cache: Path,
) -> None:
    small_spec |= {"supervised": [{"params": ["3k"], "tokens": ["256k" if capped else "64k"]}]}
    small_spec |= {"teachers": [], "students": [], "hardware": {"dollars_per_hour": 3600.0}}
    dag = dag_of(parse_sweep(small_spec))
    (step,) = dag.steps
    store = Store(tmp_path / "store")
    driver = driven(dag, **({"dollars": 1000.0} if capped else {}))
    first = awaited(lambda: trains(store, step.id), 120)
    driver.send_signal(signal.SIGSTOP)
    worker = first.told["pid"], first.told["since"]
    stopped = time.monotonic()
    awaited(lambda: process_start_ticks(worker[0]) != worker[1], 120)
    (first,) = attempts(store, step.id)
    if not capped:
        assert first.ending is Ending.DONE
        return
    assert time.monotonic() - stopped < 30
    assert first.ending is Ending.LOST
    assert "its driver is silent" in first.told["reason"]
    assert store.result(step.id) is None
    driver.send_signal(signal.SIGCONT)
    second = awaited(lambda: attempts(store, step.id)[1:], 60)[0]
    assert awaited(lambda: attempts(store, step.id)[1].told.get("began"), 60) >= first.done - 1
    assert second.number == 2
