"""Ray in a Slurm allocation of two hosts, from the script that ``sweep launch slurm-ray`` writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweeps
from sweeps.store.leases import attempts
from sweeps.store.store import Store

CONFIGURATION = """
ClusterName=test
SlurmctldHost=here({here})
AuthInfo=socket={place}/munge
SlurmUser=root
SlurmctldPidFile={place}/slurmctld.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdPidFile={place}/%n.pid
SlurmdLogFile={place}/%n.log
SlurmdSpoolDir={place}/%n
StateSaveLocation={place}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
NodeName=here NodeAddr={here} CPUs=2 RealMemory=6000 State=UNKNOWN
NodeName=there NodeAddr={there} CPUs=2 RealMemory=6000 State=UNKNOWN
PartitionName=all Nodes=here,there Default=YES MaxTime=INFINITE State=UP
"""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")


@pytest.fixture
def slurm_hosts(
    hosts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Run a controller and a node here and a node there; the value runs a command here and returns its output."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)} (apt-get install slurm-wlm)")
    place = tmp_path / "slurm"
    (place / "state").mkdir(parents=True)
    addresses = {host.name: host.address for host in hosts.values()}
    (place / "slurm.conf").write_text(CONFIGURATION.format(place=place, **addresses))
    (place / "key").write_bytes(os.urandom(1024))
    (place / "key").chmod(0o400)
    names = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in addresses.items())
    (place / "hosts").write_text(names)
    monkeypatch.setenv("SLURM_CONF", str(place / "slurm.conf"))
    files = {"key-file": "key", "socket": "munge", "pid-file": "munged.pid", "log-file": "munged.log"}
    options = [f"--{name}={place / file}" for name, file in (files | {"seed-file": "seed"}).items()]
    here, there = (host.command for host in hosts.values())
    node = f"mount --bind {place}/hosts /etc/hosts; exec slurmd -D -N"
    daemons = [["munged", "--foreground", "--force", *options]]
    daemons += [[*here, "sh", "-c", f"slurmctld -D & {node} here"], [*there, "sh", "-c", f"{node} there"]]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    started = [subprocess.Popen(daemon, **quiet) for daemon in daemons]

    inside = ["nsenter", f"--net=/run/netns/{hosts['here'].network}"]

    def says(*command: str) -> str:
        return subprocess.run([*inside, *command], capture_output=True, text=True, check=True).stdout

    try:
        awaited(lambda: "2 idle" in quietly(says, "sinfo", "-h", "-o", "%D %t"), 60)
        yield says
    finally:
        subprocess.run([*inside, "scancel", "-u", "root"], check=False)
        for daemon in reversed(started):
            daemon.kill()  # and with it, its name spaces
            daemon.wait(30)


def quietly(says: Callable[..., str], *command: str) -> str:
    try:
        return says(*command)
    except subprocess.CalledProcessError:
        return ""


def awaited(what: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.slow
def test_a_sweep_with_a_gang_runs_on_ray_that_spans_two_hosts(
    slurm_hosts: Callable[..., str],
    small_spec: dict[str, Any],
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the environment of distlaw on PATH: the script finds Ray itself."""
    small_spec["resources"] = [{"cpus": 1}, {"from_params": "5k", "cpus": 1, "nodes": 2}]
    spec, store = tmp_path / "spec.yaml", Store(tmp_path / "store")
    spec.write_text(yaml.safe_dump(small_spec))
    loaded = sweeps.load(spec)
    (submit, _) = loaded.launch("slurm-ray", tmp_path / "out", store=store.root, nodes=2, cpus=2, hours=0.2)
    monkeypatch.setenv("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
    slurm_hosts("sbatch", submit.split()[1])
    awaited(lambda: not slurm_hosts("squeue", "-h").strip(), 500)
    (log,) = (tmp_path / "out").glob("distlaw-*.log")
    ids = [step.id for step in loaded.dag.steps]
    assert f"{len(ids)} of {len(ids)} steps done" in log.read_text(), log.read_text()[-4000:]
    told = {each: [attempt.told for attempt in attempts(store, each)] for each in ids}
    assert {len(each) for each in told.values()} == {1}
    assert {each[0].get("nodes", 1) for each in told.values()} == {1, 2}
