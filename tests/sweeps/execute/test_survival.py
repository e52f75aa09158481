"""Whole sweeps, as commands in processes of their own, whose parts are killed at random until they are done.

However that goes: every result once, the losses and weights of an undisturbed sweep bit for bit, every step done
by one attempt, and no kill costs more than the work since the last checkpoint.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.leases import attempts
from sweeps.store.store import Store

pytestmark = pytest.mark.alone

CHECKPOINT_SECONDS = 1.0
PATIENCE = 12.0
BIN = Path(sys.executable).parent

Hit = Callable[[], list[int]]
"""Finds processes to kill."""


class Part:
    """A process that is started again whenever it has ended."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.command, self.environment, self.log = command, environment, log
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None

    def keep_alive(self) -> None:
        if self.process is None or self.process.poll() is not None:
            self.starts += 1
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self.command, env=self.environment, stdout=log, stderr=log, start_new_session=True
                )

    def pids(self) -> list[int]:
        return [self.process.pid] if self.process and self.process.poll() is None else []

    def kill(self) -> None:
        for pid in [*(pid for root in self.pids() for pid in below(root)), *self.pids()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process:
            self.process.wait()


def below(root: int) -> list[int]:
    """All processes that ``root`` started, and those that these started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = list(children.get(root, []))
    return found + [pid for child in found for pid in below(child)]


def named(roots: list[int], *words: str) -> list[int]:
    """Processes below ``roots`` whose command has one of ``words`` in it."""
    found = []
    for pid in [pid for root in roots for pid in below(root)]:
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            if any(word in command for word in words):
                found.append(pid)
    return found


def forked(roots: list[int]) -> list[int]:
    """The processes that forkers below ``roots`` have forked: each trains."""
    return [pid for forker in named(roots, "sweeps.execute.executors.fork_server") for pid in below(forker)]


def survive(
    parts: dict[str, Part],
    hits: dict[str, Hit],
    store: Path,
    steps: int,
    kills: int,
    seed: int,
    deadline: float,
    pauses: tuple[float, float] = (1.0, 8.0),
) -> dict[str, int]:
    """Kill at random, starting again what has ended, until all results are there; what was killed how often."""
    draw, done = random.Random(seed), dict.fromkeys(hits, 0)
    seen: dict[Path, tuple[int, int]] = {}
    ends = time.monotonic() + deadline
    next_kill = time.monotonic() + max(pauses)
    while len(seen) < steps:
        assert time.monotonic() < ends, f"{len(seen)} of {steps} steps after {deadline} s, killed {done}"
        for part in parts.values():
            part.keep_alive()
        for path in store.glob("*/result.json"):
            state = path.stat()
            assert seen.setdefault(path, (state.st_ino, state.st_mtime_ns)) == (
                state.st_ino,
                state.st_mtime_ns,
            )
        if sum(done.values()) < kills and time.monotonic() > next_kill and len(seen) < steps:
            what = min(done, key=lambda name: (done[name], draw.random()))
            if pids := hits[what]():
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(pids), signal.SIGKILL)
                    done[what] += 1
                next_kill = time.monotonic() + draw.uniform(*pauses)
        time.sleep(0.1)
    return done


def judge(store: Store, undisturbed: Store, ids: list[str]) -> dict[str, float]:
    """Compare with an undisturbed sweep; how many attempts there were, and the work lost at most."""
    lost, count = 0.0, 0
    for step in ids:
        ours, theirs = store.result(step), undisturbed.result(step)
        assert ours
        assert theirs
        for name in ("loss", "loss_se", "weights_sha256", "tokens", "flops"):
            assert ours.get(name) == theirs.get(name), (step, name)
        history = attempts(store, step)
        count += len(history)
        assert sum(each.ending == "done" for each in history) == 1
        for before, after in pairwise(history):
            if "steps_done" in before.told and "began" in after.told:
                took = before.done - before.told["began"]
                rate = took / before.told["elapsed"] if took else 1.0
                lost = max(lost, (before.done - after.told["began"]) / rate)
    return {"attempts": count, "seconds_lost": lost}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "DISTLAW_CACHE": str(tmp_path / "cache"),
        "DISTLAW_CHECKPOINT_SECONDS": str(CHECKPOINT_SECONDS),
        "DISTLAW_LEASE_SECONDS": str(PATIENCE),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }


def prepare(spec: dict[str, Any], place: Path, environment: dict[str, str]) -> tuple[Path, Store, list[str]]:
    """The spec in a file, an undisturbed sweep of it, and its steps."""
    path = place / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    whole = place / "whole"
    command = [str(BIN / "python"), "-m", "distlaw", "sweep", "run", str(path), "--store", str(whole)]
    subprocess.run([*command, "--executor", "process", "--cores", "2"], env=environment, check=True)
    return path, Store(whole), [step.id for step in dag_of(parse_sweep(spec)).steps]


def test_workers_their_forkers_and_drivers_are_killed(
    small_spec: dict[str, Any], tmp_path: Path, environment: dict[str, str]
) -> None:
    """The short version, on processes; two drivers share the store, and steps go on where they were."""
    small_spec["training"]["batch_tokens"] = 32
    path, whole, ids = prepare(small_spec, tmp_path, environment)
    store = tmp_path / "store"
    command = [str(BIN / "python"), "-m", "distlaw", "sweep", "run", str(path), "--store", str(store)]
    parts = {
        name: Part([*command, "--executor", "process", "--cores", "1"], environment, tmp_path / f"{name}.log")
        for name in ("one", "two")
    }
    roots = lambda: [pid for part in parts.values() for pid in part.pids()]  # noqa: E731
    try:
        done = survive(
            parts,
            {"worker": lambda: forked(roots()), "driver": roots},
            store,
            len(ids),
            kills=4,
            seed=0,
            deadline=240,
            pauses=(0.5, 2.0),
        )
    finally:
        for part in parts.values():
            part.kill()
    found = judge(Store(store), whole, ids)
    print(json.dumps({"killed": done, "steps": len(ids), **found}))  # noqa: T201
    assert sum(done.values()) >= 3
    assert found["seconds_lost"] <= 2 * CHECKPOINT_SECONDS + 1


@pytest.fixture
def ray_place(tmp_path: Path, environment: dict[str, str]) -> Iterator[tuple[dict[str, Part], str]]:
    """A head and a node of a cluster, each a process that can be killed, and the head's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = tmp_path / "token"
    token.write_text("f" * 64)
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "3000",
    }
    address = f"{socket.gethostbyname(socket.gethostname())}:{port}"
    start = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", "--num-cpus", "1"]
    head = [*start, "--head", "--port", str(port), "--include-dashboard", "false"]
    head += ["--temp-dir", f"/tmp/distlaw-{os.getpid()}", "--object-store-memory", "100000000"]
    parts = {
        "head": Part(head, environment, tmp_path / "head.log"),
        "node": Part([*start, "--address", address], environment, tmp_path / "node.log"),
    }
    yield parts, address
    for part in parts.values():
        part.kill()


@pytest.mark.slow
@pytest.mark.ray
def test_thirty_kills_of_workers_raylets_drivers_and_heads(
    small_spec: dict[str, Any],
    tmp_path: Path,
    environment: dict[str, str],
    ray_place: tuple[dict[str, Part], str],
) -> None:
    """At least forty small steps on a cluster of two nodes of which nothing is safe (10 to 20 minutes)."""
    small_spec["supervised"] = [{"params": ["3k", "7k"], "tokens": ["64k", "96k"], "seeds": [0, 1, 2]}]
    small_spec["students"] = [{"params": ["3k"], "tokens": ["64k", "96k", "128k"], "seeds": [0, 1, 2, 3, 4]}]
    path, whole, ids = prepare(small_spec, tmp_path, environment)
    assert len(ids) >= 40
    parts, address = ray_place
    store = tmp_path / "store"
    command = [str(BIN / "python"), "-m", "distlaw", "sweep", "run", str(path), "--store", str(store)]
    parts["driver"] = Part([*command, "--address", address], environment, tmp_path / "driver.log")
    cluster = lambda: [*parts["head"].pids(), *parts["node"].pids()]  # noqa: E731
    hits: dict[str, Hit] = {
        "worker": lambda: named(cluster(), "_run_elsewhere", "sweeps.execute.executors.fork_server"),
        "raylet": lambda: named(parts["node"].pids(), "raylet/raylet"),
        "driver": parts["driver"].pids,
        "head": lambda: named(parts["head"].pids(), "gcs/gcs_server"),
    }
    try:
        done = survive(parts, hits, store, len(ids), kills=32, seed=1, deadline=2400)
    finally:
        parts["driver"].kill()
    found = judge(Store(store), whole, ids)
    print(json.dumps({"killed": done, "steps": len(ids), **found}))  # noqa: T201
    assert sum(done.values()) >= 30
    assert min(done.values()) >= 5
    assert found["seconds_lost"] <= 2 * CHECKPOINT_SECONDS + 1
