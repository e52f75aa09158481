"""Stores and nodes that stay broken: a full disk, a read-only one, a worker that cannot start. Real ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.dag.expand import Dag
from sweeps.execute.executors.local import ProcessExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.state import State
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.leases import attempts
from sweeps.store.store import Store

MEGABYTE = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def dag(small_spec: dict[str, Any], own_cache: Path) -> Dag:
    return dag_of(parse_sweep(small_spec))


def drive(dag: Dag, store: Store, cores: int = 2, seconds: float = 60.0) -> State:
    """Run a sweep on processes; it must end by itself, and soon."""
    processes, started = ProcessExecutor(store, cores), time.monotonic()

    def watch(state: State) -> None:
        assert time.monotonic() - started < seconds, (state.halted, state.failed, state.troubles[-3:])

    try:
        return run(dag, store, processes, lambda step: step.flops, watch)
    finally:
        processes.close()


def fill(disk: Path) -> None:
    """Leave not a byte."""
    with suppress(OSError), (disk / "filling").open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    for number in range(100):  # nor room for a name
        with suppress(OSError):
            (disk / f"filling-{number}").write_bytes(b"x")


def test_a_disk_that_is_full_before_the_first_worker_stops_the_sweep_at_once(dag: Dag, disk: Path) -> None:
    store = Store(disk / "store")
    store.create()
    fill(disk)
    state = drive(dag, store)
    assert state.halted
    assert state.halted.startswith("the store is full: No space left on device")
    assert state.halted.endswith("; make room and start again")
    assert not state.failed
    (disk / "filling").unlink()
    assert drive(Dag(steps=dag.steps[:1], asked=1), store).complete


def test_a_disk_that_fills_up_in_the_midst_stops_what_runs(
    dag: Dag, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTLAW_CHECKPOINT_SECONDS", "0.2")
    store = Store(disk / "store")
    store.create()
    thread = threading.Thread(target=_once_begun, args=(store, dag, lambda: fill(disk)))
    thread.start()
    state = drive(dag, store)
    thread.join()
    assert state.halted
    assert state.halted.startswith("the store is full: ")


def test_permissions_lost_in_the_midst_stop_the_sweep_with_a_sentence(
    small_spec: dict[str, Any], dag: Dag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the command, since root must give up its right to write everywhere."""
    monkeypatch.setenv("DISTLAW_CHECKPOINT_SECONDS", "0.2")
    spec, store = tmp_path / "spec.yaml", Store(tmp_path / "store")
    spec.write_text(yaml.safe_dump(small_spec))
    humbly = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if humbly and not shutil.which("setpriv"):
        pytest.skip("root writes everywhere")
    command = [sys.executable, "-m", "distlaw", "sweep", "run", str(spec), "--store", store.root]
    driver = subprocess.Popen(
        [*humbly, *command, "--executor", "process", "--cores", "1"], stderr=subprocess.PIPE, text=True
    )
    _once_begun(store, dag, lambda: None)
    folders = [path for path in [Path(store.root), *Path(store.root).rglob("*")] if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    said = driver.communicate(timeout=60)[1]
    for folder in folders:
        folder.chmod(0o755)
    assert driver.returncode == 1
    assert "stopped: the store cannot be written: Permission denied" in said
    assert "Traceback" not in said


def _once_begun(store: Store, dag: Dag, then: Any) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(attempts(store, step.id) for step in dag.steps):
        time.sleep(0.05)
    then()


def test_a_worker_that_cannot_start_stops_the_sweep_with_its_words(
    dag: Dag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package is missing, as on a node that was set up otherwise."""
    python = tmp_path / "python"
    blocked = "import sys; sys.modules['torch'] = None; import runpy; runpy.run_module(sys.argv[1])"
    python.write_text(
        f'#!/bin/sh\necho "$$" >> {tmp_path}/starts\nexec {sys.executable} -c "{blocked}" "$2"\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    store = Store(tmp_path / "store")
    store.create()
    state = drive(dag, store)
    assert state.halted
    assert state.halted.startswith("no worker can be started: a worker could not be started on ")
    assert state.halted.endswith("sweeps need torch: pip install 'distlaw[sweeps]'")
    assert len((tmp_path / "starts").read_text().split()) < 10
    assert all("could not be started" in trouble for trouble in state.troubles)


def test_a_python_that_is_not_there_stops_the_sweep(
    dag: Dag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    store.create()
    processes = ProcessExecutor(store, 1)
    for forker in processes.idle:
        forker.close()
    processes.idle = []
    monkeypatch.setattr(sys, "executable", os.fspath(tmp_path / "nowhere"))
    state = run(dag, store, processes, lambda step: step.flops, lambda _: None)
    assert state.halted
    assert "no worker can be started" in state.halted
