"""Forty kills over a sweep of commands: none is lost, and none runs twice at once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from commands_in_tests import trainer

import sweeps
from sweeps.external.process import MARK
from sweeps.store.leases import attempts
from sweeps.store.store import Store

KILLS = 40
WHAT = ["driver"] * 4 + ["worker"] * 10 + ["guard"] * 10 + ["command"] * 10 + ["worker and guard"] * 6
"""Processes that are killed with SIGKILL, in an order drawn at random."""


def guards(place: Path) -> Iterator[tuple[int, int, list[int]]]:
    """Yield guard, worker and commands of each run at work, by the mark in their environment."""
    mark = f"{MARK}={place}/".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            if mark in (folder / "environ").read_bytes() and b"guard.py" in (folder / "cmdline").read_bytes():
                worker = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children = (folder / "task" / folder.name / "children").read_text().split()
                yield int(folder.name), worker, [int(pid) for pid in children]


def kill(what: str, place: Path, driver: subprocess.Popen[bytes], draw: random.Random) -> bool:
    """Kill what is named, of a run drawn at random; False if nothing is at work."""
    if what == "driver":
        driver.kill()
        driver.wait()
        return True
    found = list(guards(place))
    if not found:
        return False
    guard, worker, commands = draw.choice(found)
    chosen = {
        "worker": [worker],
        "guard": [guard],
        "command": commands[:1],
        "worker and guard": [worker, guard],
    }[what]
    for pid in chosen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(chosen)


@pytest.mark.slow
def test_forty_kills(spec: dict[str, Any], tmp_path: Path) -> None:
    place, locks, file = tmp_path / "store", tmp_path / "locks", tmp_path / "spec.json"
    locks.mkdir()
    spec["trainer"] = trainer(f"once={locks}", "sleep=3")
    spec["supervised"] = [{"params": ["4184"], "tokens": ["32k"], "seeds": list(range(20))}]
    spec["resources"] = [{"gpus": 0, "cpus": 1}]
    file.write_text(json.dumps(spec))
    command = [
        sys.executable,
        "-m",
        "distlaw",
        "sweep",
        "run",
        str(file),
        "--store",
        str(place),
        "--cores",
        "3",
    ]

    def start() -> subprocess.Popen[bytes]:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([*command, "--executor", "process"], **quiet, start_new_session=True)  # type: ignore[call-overload,no-any-return]

    draw, driver, done = random.Random(1), start(), 0
    order = draw.sample(WHAT, len(WHAT))
    deadline = time.monotonic() + 1500
    try:
        while time.monotonic() < deadline:
            time.sleep(draw.uniform(0.1, 1.5))
            if done < KILLS and kill(order[done], place, driver, draw):
                done += 1
            if driver.poll() is None:
                continue
            if driver.returncode == 0:
                break
            driver = start()
    finally:
        driver.kill()
        driver.wait()
    store, steps = Store(place), [step.id for step in sweeps.load(spec).dag.steps]
    assert done == KILLS, f"only {done} kills before the sweep was done"
    assert len(store.results(steps)) == len(steps)
    assert not list(locks.glob("*.twice"))
    for step in steps:  # one attempt of each has the result
        assert [each.ending for each in attempts(store, step)].count("done") <= 1
    assert not list(guards(place))
