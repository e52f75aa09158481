"""Four drivers of one sweep, started in the same second, killed and put to sleep at random, under a cap.

On a local disk, in a bucket, and on a disk with the delays and stale listings of NFS. However that goes, no
attempt is taken from a process that lives, and what is spent, as measured by watching the processes, keeps to
the cap.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml
from test_survival import BIN, Part, below, forked

from sweeps.dag.expand import Dag
from sweeps.estimate.cost import Throughput, _machine_key
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.leases import Attempt, attempt_path, attempts
from sweeps.store.processes import process_start_ticks
from sweeps.store.store import Store
from sweeps.watch.status import status as read_status

pytestmark = pytest.mark.alone

PATIENCE = 6.0
DOLLARS_PER_SECOND = 1.0
DRIVERS = 4
PROMISE = 0.05

SLOW = '''
"""Loaded by every Python: the store's files come late, and listings are a second old now and then."""

import importlib.abc, importlib.machinery, random, sys, time


class Delay(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "sweeps.store.store":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            slow(module.Store)

        spec.loader.exec_module = exec_module
        return spec


def slow(store):
    listed = {}

    def late(method):
        def call(self, *arguments, **options):
            time.sleep(min(3.0, random.expovariate(40)) if random.random() > 0.01 else random.uniform(1, 3))
            return method(self, *arguments, **options)

        return call

    def stale(method):
        def call(self, *where):
            then, found = listed.get(where, (0.0, []))
            if time.monotonic() - then > 1.0:
                then, found = listed[where] = time.monotonic(), method(self, *where)
            return list(found)

        return call

    for name in ("read_bytes", "write_bytes", "put_new"):
        setattr(store, name, late(getattr(store, name)))
    store.names = stale(late(store.names))


sys.meta_path.insert(0, Delay())
'''


class Harm:
    """Kills workers and drivers, and stops some for longer than a lease lasts; remembers whom."""

    def __init__(self, parts: list[Part], hits: int, seed: int) -> None:
        self.parts, self.left, self.draw = parts, hits, random.Random(seed)
        self.hurt: set[tuple[int, int | None]] = set()
        self.asleep: list[tuple[int, float]] = []
        self.done = {"worker": 0, "driver": 0, "sleep": 0}
        self.due = time.monotonic() + 8.0

    def now_and_then(self) -> None:
        """Do some harm, if it is time."""
        now = time.monotonic()
        for pid, until in [each for each in self.asleep if each[1] < now]:
            self.asleep.remove((pid, until))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if self.left and now > self.due:
            self.due = now + self.draw.uniform(0.5, 4.0)
            what = min(self.done, key=lambda name: (self.done[name], self.draw.random()))
            drivers = [pid for part in self.parts for pid in part.pids()]
            found = drivers if what == "driver" else forked(drivers)
            if what == "sleep" and self.draw.random() < 0.3:
                found = drivers  # its workers go on meanwhile
            if found:
                self._hit(self.draw.choice(found), what)

    def _hit(self, pid: int, what: str) -> None:
        self.hurt |= {(each, process_start_ticks(each)) for each in [pid, *below(pid)]}
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if what == "sleep" else signal.SIGKILL)
            self.left -= 1
            self.done[what] += 1
        if what == "sleep":
            self.asleep.append((pid, time.monotonic() + self.draw.uniform(0.5, 2.0) * PATIENCE))


class Clock:
    """Measures how long workers live, stopped or not, by looking at the processes and at nothing that they say."""

    def __init__(self) -> None:
        self.lives: dict[tuple[int, int | None], tuple[float, float]] = {}
        """Start of each process, and when it was last seen."""
        self.gone: dict[tuple[int, int | None], float] = {}
        """When a process was first found to have exited."""

    def look(self, parts: list[Part]) -> None:
        """Note who lives, also those seen before whose driver has been killed meanwhile."""
        now = time.time()
        found = {
            (pid, process_start_ticks(pid)) for pid in forked([p for part in parts for p in part.pids()])
        }
        found |= {each for each in self.lives if process_start_ticks(each[0]) == each[1]}
        self.gone |= {each: time.time() for each in self.lives.keys() - self.gone.keys() - found}
        for pid, started in found:
            if started:
                first, _ = self.lives.get((pid, started), (now - age(started), now))
                self.lives[pid, started] = first, now

    @property
    def seconds(self) -> float:
        """Sum of their lives, up to when each was last seen."""
        return sum(last - first for first, last in self.lives.values())

    @property
    def seconds_at_most(self) -> float:
        """Sum of their lives, up to when each was found to have exited."""
        return sum(self.gone.get(each, last) - first for each, (first, last) in self.lives.items())


def age(started: int) -> float:
    """Seconds since a process started, of which the kernel tells the start in hundredths, rounded down."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - (started + 1) / os.sysconf("SC_CLK_TCK"))


def environment_of(tmp_path: Path, kind: str) -> dict[str, str]:
    environment = os.environ | {
        "DISTLAW_CACHE": str(tmp_path / "cache"),
        "DISTLAW_CHECKPOINT_SECONDS": "1",
        "DISTLAW_LEASE_SECONDS": str(PATIENCE),
        "OMP_NUM_THREADS": "1",
    }
    if kind == "nfs":
        (tmp_path / "slow").mkdir()
        (tmp_path / "slow" / "sitecustomize.py").write_text(SLOW)
        environment["PYTHONPATH"] = f"{tmp_path}/slow:{environment.get('PYTHONPATH', Path.cwd())}"
    return environment


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Starts moto's server in a process of its own, and makes a bucket there."""
    servers: list[subprocess.Popen[str]] = []

    def start() -> str:
        pytest.importorskip("moto.server")
        code = (
            "import time; from moto.server import ThreadedMotoServer as S; s = S(port=0, verbose=False); "
            "s.start(); print(s.get_host_and_port()[1], flush=True); time.sleep(1e6)"
        )
        servers.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
        assert servers[0].stdout
        port = servers[0].stdout.readline().strip()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }.items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        fsspec.filesystem("s3").mkdir("bucket")
        return "s3://bucket/sweep"

    yield start
    for server in servers:
        server.kill()
        server.wait()
        assert server.stdout
        server.stdout.close()
    if servers:
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def believe_in_a_fast_machine(dag: Dag, cache: Path) -> None:
    """Have the sweep planned as if this machine were far faster than it is: reservations will be too small."""
    wrong = Throughput([1e3, 1e6], [1e-6, 1e-6], [1e-7, 1e-7], [1e-6, 1e-6], [1e-6, 1e-6])
    path = cache / "throughput" / f"{_machine_key(dag.example)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(wrong)))


def drive(
    spec: dict[str, Any], store: str, tmp_path: Path, environment: dict[str, str], hits: int, seed: int
) -> tuple[Harm, Clock]:
    """Four drivers from the same second on, until none is left that would go on; harm is done meanwhile."""
    path = tmp_path / f"spec-{seed}.yaml"
    path.write_text(yaml.safe_dump(spec))
    command = [str(BIN / "python"), "-m", "distlaw", "sweep", "run", str(path), "--store", store]
    command += ["--executor", "process", "--cores", "1"]
    parts = [Part(command, environment, tmp_path / f"{seed}-{number}.log") for number in range(DRIVERS)]
    harm, clock = Harm(parts, hits, seed), Clock()
    deadline, over = time.monotonic() + 900, set()
    try:
        while len(over) < DRIVERS:
            assert time.monotonic() < deadline, harm.done
            for number, part in enumerate(parts):
                if number not in over and part.process and part.process.poll() in (0, 1):
                    over.add(number)
                elif number not in over:
                    part.keep_alive()
            clock.look(parts)
            harm.now_and_then()
            time.sleep(0.05)
        clock.look(parts)
    finally:
        for part in parts:
            part.kill()
    return harm, clock


def stolen(store: Store, dag: Dag, *phases: tuple[Harm, Clock]) -> list[tuple[str, int, Any]]:
    """Attempts that another one took over although nobody had harmed their process, and it was alive.

    Their process has said so, or was seen after the next had claimed.
    """
    hurt = set().union(*(harm.hurt for harm, _ in phases))
    lives = {process: last for _, clock in phases for process, (_, last) in clock.lives.items()}

    def taken(step: str, attempt: Attempt) -> bool:
        claim, after = (store.read(*attempt_path(step, attempt.number + more)) or {} for more in (0, 1))
        process = claim.get("pid"), claim.get("since")
        seen_after = lives.get(process, 0.0) > datetime.fromisoformat(after["started"]).timestamp() + 1.5
        return process not in hurt and (attempt.ending == "held" or seen_after)

    return [
        (step.id, attempt.number, attempt.told)
        for step in dag.steps
        for attempt in attempts(store, step.id)[:-1]
        if taken(step.id, attempt)
    ]


@pytest.mark.parametrize(
    ("kind", "hits"),
    [
        ("disk", 5),
        pytest.param("disk", 20, marks=pytest.mark.slow),
        pytest.param("bucket", 20, marks=pytest.mark.slow),
        pytest.param("nfs", 20, marks=pytest.mark.slow),
    ],
)
def test_four_drivers_at_once_steal_nothing_and_keep_to_the_cap(
    small_spec: dict[str, Any], tmp_path: Path, bucket: Callable[[], str], kind: str, hits: int
) -> None:
    url = bucket() if kind == "bucket" else str(tmp_path / "store")
    environment = environment_of(tmp_path, kind)
    few = hits < 20
    small_spec["supervised"] = [
        {"params": ["3k", "7k"], "tokens": ["64k"], "seeds": list(range(2 if few else 6))}
    ]
    small_spec["students"] = [{"params": ["3k"], "tokens": ["40k"], "seeds": list(range(2 if few else 6))}]
    small_spec["hardware"] = {"dollars_per_hour": DOLLARS_PER_SECOND * 3600}
    cap = 40.0 if few else 120.0
    dag = dag_of(parse_sweep(small_spec))
    believe_in_a_fast_machine(dag, tmp_path / "cache")

    capped = small_spec | {"caps": {"dollars": cap}}
    harm, clock = first = drive(capped, url, tmp_path, environment, hits, seed=1)
    spent = clock.seconds * DOLLARS_PER_SECOND
    store = Store(url)
    said = [(tmp_path / f"1-{number}.log").read_text() for number in range(DRIVERS)]
    done = sum(store.result(step.id) is not None for step in dag.steps)
    print(json.dumps({"kind": kind, "harm": harm.done, "cap": cap, "spent": spent, "done": done}))  # noqa: T201
    assert spent <= cap * (1 + PROMISE)
    counted = read_status(store).spent.dollars
    print(json.dumps({"counted": counted, "at most": clock.seconds_at_most}))  # noqa: T201
    assert counted >= spent  # nothing lived uncounted
    assert all("stopped: caps.dollars: " in text for text in said) or done == len(dag.steps)
    assert not stolen(store, dag, first)

    second = drive(small_spec, url, tmp_path, environment, 3 if few else hits, seed=2)
    print(json.dumps({"harm": second[0].done}))  # noqa: T201
    assert all(store.result(step.id) for step in dag.steps)
    assert not stolen(store, dag, first, second)
    assert all(sum(each.ending == "done" for each in attempts(store, step.id)) <= 1 for step in dag.steps)
