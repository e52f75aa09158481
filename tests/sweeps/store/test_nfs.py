"""Two hosts share a store through NFS that shows changes late and loses answers, and clocks that disagree.

NFS is a stand-in in user space (``nfs_stand_in.py``), with one mount for each host; wall clocks are set wrong by a
library (``wall_clock.c``) that leaves monotonic time alone.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweeps
from sweeps.store.leases import Lease, attempts
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store

STAND_IN = Path(__file__).with_name("nfs_stand_in.py")
CACHE_SECONDS = 1.5
RACE = """
import json, sys, time
from sweeps.store.leases import create_once
from sweeps.store.store import Store
store = Store(sys.argv[1])
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
print(json.dumps([create_once(store, {"by": sys.argv[1]}, f"claim-{n}.json") for n in range(40)]))
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The store's directory as two hosts see it."""
    if find_spec("mfusepy") is None or not Path("/dev/fuse").exists():
        pytest.skip("needs /dev/fuse, libfuse and mfusepy")
    (tmp_path / "server").mkdir()
    mounts, clients = (tmp_path / "a", tmp_path / "b"), []
    for seed, mount in enumerate(mounts):
        mount.mkdir()
        command = [sys.executable, str(STAND_IN), str(tmp_path / "server"), str(mount), str(seed)]
        with (tmp_path / f"client-{seed}.log").open("wb") as log:
            clients.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
    deadline = time.monotonic() + 20
    while not all(mount.is_mount() for mount in mounts):
        if any(client.poll() is not None for client in clients) or time.monotonic() > deadline:
            said = " ".join(path.read_text()[-200:] for path in tmp_path.glob("client-*.log"))
            pytest.skip(f"no mount: {said}")
        time.sleep(0.1)
    yield mounts
    for mount in mounts:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)
    for client in clients:
        client.wait(20)


def test_a_claim_is_given_once_though_answers_are_lost(hosts: tuple[Path, Path]) -> None:
    """Nobody takes what another has, and nobody lets go of what he has: not even one of forty is lost."""
    first, second = (Store(mount / "store") for mount in hosts)
    first.create()
    start = str(time.time() + 4.0)
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, store.root, start], stdout=subprocess.PIPE)
        for store in (first, second)
    ]
    won = [json.loads(racer.communicate()[0]) for racer in racers]
    assert all(sorted(pair) == [False, True] for pair in zip(*won, strict=True))
    time.sleep(2 * CACHE_SECONDS)
    for number, (mine, _) in enumerate(zip(*won, strict=True)):
        kept = second.read(f"claim-{number}.json")
        assert kept is not None
        assert (kept["by"] == first.root) is mine


def test_the_store_passes_its_check_on_both_hosts(hosts: tuple[Path, Path]) -> None:
    for mount in hosts:
        store = Store(mount / "store")
        store.create()
        for _ in range(10):
            store.probe()


def test_what_one_host_commits_the_other_sees_late_and_once(hosts: tuple[Path, Path]) -> None:
    first, second = (Store(mount / "store") for mount in hosts)
    first.create()
    assert second.read("step", "kept.json") is None
    claims = [Lease.claim(store, "step", 1) for store in (first, second)]
    assert claims[0] is not None
    assert claims[1] is None
    written = [
        store.put_new({"host": host}, "step", "kept.json") for host, store in enumerate((first, second))
    ]
    assert written == [True, False]
    claims[0].conclude(None)
    time.sleep(2 * CACHE_SECONDS)
    for store in (first, second):
        assert store.read("step", "kept.json") == {"host": 0}


@pytest.fixture
def spec(small_spec: dict[str, Any], own_cache: Path) -> dict[str, Any]:
    small_spec["supervised"] = [{"params": ["3k"], "tokens": ["32k"], "seeds": [0, 1, 2, 3]}]
    small_spec["teachers"] = [{"params": ["7k"], "tokens": ["200k"]}]
    small_spec["students"] = [{"params": ["3k"], "tokens": ["64k"], "seeds": [0, 1]}]
    return small_spec


def swept(
    spec: dict[str, Any],
    stores: tuple[Path, Path],
    tmp_path: Path,
    environments: tuple[dict[str, str], dict[str, str]],
    harm: Callable[[list[subprocess.Popen[bytes]]], None],
) -> None:
    """Run two drivers, each on its host, start again what ends too early, and check what they leave."""
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    own = {"DISTLAW_LEASE_SECONDS": "8", "DISTLAW_CHECKPOINT_SECONDS": "1", "OMP_NUM_THREADS": "1"}

    def drive(host: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distlaw", "sweep", "run", str(path), "--store", str(stores[host])]
        with (tmp_path / f"driver-{host}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--cores", "1"],
                env=os.environ | own | environments[host],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    drivers = [drive(0), drive(1)]
    deadline = time.monotonic() + 420
    while any(driver.poll() != 0 for driver in drivers):
        said = [(tmp_path / f"driver-{host}.log").read_text()[-1500:] for host in (0, 1)]
        assert time.monotonic() < deadline, said
        for host, driver in enumerate(drivers):
            if driver.poll() not in (None, 0):
                assert driver.poll() == -signal.SIGKILL, said
                drivers[host] = drive(host)
        harm(drivers)
        time.sleep(0.5)
    loaded = sweeps.load(spec)
    alone = loaded.run(tmp_path / "alone", executor="inline")
    assert alone.complete
    left, expected = Store(stores[0]), Store(tmp_path / "alone")
    for step in loaded.dag.steps:
        found, wanted = left.result(step.id), expected.result(step.id)
        assert found is not None
        assert wanted is not None
        assert found.get("loss") == wanted.get("loss")  # bit for bit, however often it was taken over
        history = attempts(left, step.id)
        assert sum(attempt.ending is Ending.DONE for attempt in history) == 1, (step.label, history)


@pytest.mark.slow
def test_a_sweep_over_slow_nfs_with_a_killed_host(
    spec: dict[str, Any], hosts: tuple[Path, Path], tmp_path: Path
) -> None:
    draw, kills = random.Random(0), [0]
    due = time.monotonic() + 12.0

    def harm(drivers: list[subprocess.Popen[bytes]]) -> None:
        if kills[0] < 2 and time.monotonic() > due + 15.0 * kills[0]:
            victim = drivers[draw.randrange(2)]
            if victim.poll() is None:
                os.killpg(victim.pid, signal.SIGKILL)
                kills[0] += 1

    stores = (hosts[0] / "store", hosts[1] / "store")
    swept(spec, stores, tmp_path, ({}, {}), harm)
    assert kills[0] == 2


@pytest.mark.slow
def test_a_sweep_of_hosts_whose_clocks_disagree_and_jump(spec: dict[str, Any], tmp_path: Path) -> None:
    """One is an hour ahead, and the other is set back by two hours while it works; caps are kept all the same."""
    library = str(tmp_path / "wall_clock.so")
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("needs a C compiler")
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, str(source)], check=True)
    ahead, jumping = (
        {"LD_PRELOAD": library, "WALL_CLOCK": str(tmp_path / name)} for name in ("ahead", "jumping")
    )
    (tmp_path / "ahead").write_text("3600")
    (tmp_path / "jumping").write_text("0")
    told = subprocess.run(["date", "+%s"], env=os.environ | ahead, capture_output=True, text=True, check=True)
    assert float(told.stdout) - time.time() == pytest.approx(3600, abs=30)
    due = time.monotonic() + 15.0

    def harm(drivers: list[subprocess.Popen[bytes]]) -> None:
        if time.monotonic() > due:
            (tmp_path / "jumping").write_text("-7200")

    spec["caps"] = {"hours": 1.0}
    store = tmp_path / "store"
    swept(spec, (store, store), tmp_path, (ahead, jumping), harm)
    assert (tmp_path / "jumping").read_text() == "-7200"
    assert 0 < sweeps.status(str(store)).hours < 0.5  # hours are those of the drivers, not of their clocks
