"""Ray in a Slurm allocation of two hosts, from the script that ``sweep launch slurm-ray`` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from real_slurm import awaited, slurm_place, slurm_running

import sweeps
from sweeps.store.leases import attempts
from sweeps.store.store import Store

SETTINGS = """
SlurmctldHost=here({here})
NodeName=here NodeAddr={here} CPUs=2 RealMemory=6000 State=UNKNOWN
NodeName=there NodeAddr={there} CPUs=2 RealMemory=6000 State=UNKNOWN
PartitionName=all Nodes=here,there Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm_hosts(
    hosts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """A controller and a node here and a node there; the value runs a command here and returns its output."""
    addresses = {host.name: host.address for host in hosts.values()}
    place = slurm_place(tmp_path, SETTINGS.format(**addresses))
    names = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in addresses.items())
    (place / "hosts").write_text(names)
    monkeypatch.setenv("SLURM_CONF", str(place / "slurm.conf"))
    here, there = (host.command for host in hosts.values())
    node = f"mount --bind {place}/hosts /etc/hosts; exec slurmd -D -N"
    daemons = [*here, "sh", "-c", f"slurmctld -D & {node} here"], [*there, "sh", "-c", f"{node} there"]
    network = ["nsenter", f"--net=/run/netns/{hosts['here'].network}"]
    with slurm_running(place, *daemons, inside=network) as says:
        yield says


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
