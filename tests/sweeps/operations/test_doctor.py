"""The doctor names what would stop or spoil a sweep on a node, and what to mend."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from distlaw.cli import app
from sweeps.operations import node_facts as facts_module
from sweeps.operations.doctor import Diagnosis, Severity, compare_nodes, examine, examine_node
from sweeps.operations.node_facts import node_facts
from sweeps.store.store import Store

HEALTHY: dict[str, Any] = {
    "host": "n1",
    "cores": 64,
    "versions": {"torch": "2.13.0", "distlaw": "0.1.0"},
    "gpus": ["H100", "H100"],
    "gpus_told": 2,
    "gpu_bytes": 80 * 2**30,
    "cache": "/cache",
    "cache_free": 500e9,
    "write_seconds": 0.02,
    "read_seconds": 0.01,
    "clock_ahead": 0.1,
}


def faults(diagnoses: list[Diagnosis]) -> list[Diagnosis]:
    return [diagnosis for diagnosis in diagnoses if diagnosis.severity is not Severity.OK]


def test_a_healthy_node_has_no_faults() -> None:
    diagnoses = list(examine_node(HEALTHY, 2.0))
    assert len(diagnoses) == 3
    assert not faults(diagnoses)
    assert not faults(list(compare_nodes([HEALTHY, HEALTHY | {"host": "n2"}])))


@pytest.mark.parametrize(
    ("change", "promised", "verdict", "words"),
    [
        ({}, 8.0, Severity.FAULT, "the cluster promises 8, torch can use 2"),
        ({"gpus": [], "gpu_bytes": None}, None, Severity.FAULT, "2 there, none that torch can use"),
        ({"store_fault": "access denied"}, 2.0, Severity.FAULT, "access denied"),
        ({"write_seconds": 3.0}, 2.0, Severity.FAULT, "set DISTLAW_LEASE_SECONDS to 180"),
        ({"read_seconds": 0.4}, 2.0, Severity.WARNING, "in the nodes' region"),
        ({"clock_ahead": -300.0}, 2.0, Severity.WARNING, "300 s behind the store's"),
        ({"cache_free": 5e8}, 2.0, Severity.FAULT, "0 GB free for /cache"),
        ({"cache_free": 5e9}, 2.0, Severity.WARNING, "5 GB free for /cache"),
    ],
)
def test_each_fault_is_named_with_what_to_mend(
    change: dict[str, Any], promised: float | None, verdict: Severity, words: str
) -> None:
    (found,) = faults(list(examine_node(HEALTHY | change, promised)))
    assert found.severity is verdict
    assert "n1" in found.subject
    assert words in f"{found.found}; {found.mend}"
    assert found.mend


def test_nodes_must_agree_on_what_changes_numbers() -> None:
    other = HEALTHY | {"host": "n2", "versions": HEALTHY["versions"] | {"torch": "2.9.0"}, "gpus": ["A100"]}
    versions, kinds = faults(list(compare_nodes([HEALTHY, other])))
    assert versions.found == "2.13.0 on n1; 2.9.0 on n2"
    assert kinds.severity is Severity.WARNING
    assert "A100, H100" in kinds.found


def test_this_machine_and_its_store_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    store.create()
    real = time.time
    monkeypatch.setattr(facts_module.time, "time", lambda: real() + 120.0)
    found = node_facts(store.url)
    assert found["clock_ahead"] == pytest.approx(120.0, abs=5.0)
    assert 0 < found["read_seconds"] < 1
    assert "torch" in found["versions"]
    assert not list((tmp_path / "store").iterdir())  # it leaves nothing
    assert not [
        each for each in examine(store) if each.severity is Severity.FAULT and "GPU" not in each.subject
    ]


def test_a_store_that_creates_files_twice_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Store, "put_new", lambda self, data, *place, durable=True: bool(self.write(data, *place)) or True
    )
    store = str(tmp_path / "store")
    done = CliRunner().invoke(app, ["sweep", "doctor", store])
    assert done.exit_code == 1
    assert "FAULT    store from" in done.output
    assert "does not refuse to create a file twice" in done.output
    told = json.loads(CliRunner().invoke(app, ["sweep", "doctor", store, "--json"]).output)
    assert {each["severity"] for each in told} >= {"fault", "ok"}


@pytest.mark.ray
def test_every_node_of_a_cluster_is_asked(tmp_path: Path) -> None:
    """A Ray that promises a GPU which is not there, as one started with --num-gpus by mistake."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False}
    )
    store = Store(tmp_path / "store")
    store.create()
    try:
        diagnoses = examine(store, cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()
    (lie,) = [each for each in diagnoses if "GPUs of" in each.subject and each.severity is Severity.FAULT]
    assert "the cluster promises 1, torch can use 0" in lie.found
