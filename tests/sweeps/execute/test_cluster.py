"""A cluster of several nodes: shares of GPUs, gangs over nodes, what can never be placed, and the job server.

The GPUs are logical: Ray hands them out, and there is nothing behind them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling.errors import InputError
from sweeps.dag.expand import Step
from sweeps.execute import submission
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.executors.ranks import ranks_of
from sweeps.execute.executors.ray_cluster import ClusterNode, cluster_misfit
from sweeps.execute.executors.ray_executor import RayExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.state import State
from sweeps.resolve import dag_of
from sweeps.spec.resources import Resources
from sweeps.spec.spec import parse_sweep
from sweeps.store.leases import attempts
from sweeps.store.store import Store
from sweeps.watch.status import status

BIN = Path(sys.executable).parent


def flops(step: Step) -> float:
    return step.flops


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A head that runs nothing, and two nodes of two cores and a GPU each; its address."""
    from ray.cluster_utils import Cluster

    nothing = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "object_store_memory": 10**8}
    found = Cluster(initialize_head=True, head_node_args=nothing)
    for _ in range(2):
        found.add_node(num_cpus=2, num_gpus=1, object_store_memory=10**8)
    yield found.address
    found.shutdown()


@pytest.fixture
def executor(cluster: str, tmp_path: Path, own_cache: Path) -> Iterator[RayExecutor]:
    store = Store(tmp_path / "store")
    store.create()
    executor = RayExecutor(store, address=cluster)
    yield executor
    executor.close()


@pytest.mark.ray
def test_shares_of_gpus_and_gangs_over_nodes(
    small_spec: dict[str, Any], executor: RayExecutor, tmp_path: Path
) -> None:
    """Small steps share GPUs; the larger model trains on both nodes at once, and to the same loss as on one."""
    rules = [{"gpus": 0.5}, {"from_params": "5k", "gpus": 1, "nodes": 2}]
    small_spec |= {"teachers": [], "students": []}
    small_spec["supervised"] = [{"params": ["3k"], "tokens": ["32k"], "seeds": [0, 1]}]
    small_spec["supervised"] += [{"params": ["7k"], "tokens": ["32k"]}]
    sweep = parse_sweep(small_spec | {"resources": rules})
    dag = dag_of(sweep)
    assert executor.slots == 4
    assert executor.usual == Resources(gpus=0.25)
    together: list[int] = []

    def watch(state: State) -> None:
        together.append(len(state.running))

    assert run(dag, executor.store, executor, flops, watch, sweep).complete
    gang = dag.steps[-1]
    told = attempts(executor.store, gang.id)[-1].told
    assert (told["nodes"], told["gpus"]) == (2, 1)
    assert max(together) >= 2
    alone = Store(tmp_path / "alone")
    alone.create()
    assert run(dag, alone, InlineExecutor(alone), flops, lambda _: None).complete
    for step in dag.steps:
        ours, theirs = executor.store.result(step.id), alone.result(step.id)
        assert ours
        assert theirs
        if step is gang:  # sums of floats in another order
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        else:
            assert ours["loss"] == theirs["loss"]

    impossible = parse_sweep(small_spec | {"resources": [{"gpus": 2}]})
    with pytest.raises(InputError, match=r"cannot run on 1 cpu and 2 gpus: 0 of the cluster's nodes"):
        run(dag_of(impossible), Store(tmp_path / "never"), executor, flops, lambda _: None, impossible)


def test_what_fits_is_reckoned_by_node_not_in_all() -> None:
    two = [ClusterNode(4, 1), ClusterNode(4, 1)]
    assert cluster_misfit(two, Resources(gpus=1, nodes=2)) is None
    assert cluster_misfit(two, Resources(gpus=2)) is not None
    assert cluster_misfit(two, Resources(cpus=5)) is not None
    assert (
        cluster_misfit([ClusterNode(0, 0), ClusterNode(8, 4, count=3)], Resources(gpus=4, nodes=3)) is None
    )  # an autoscaler's
    assert (
        cluster_misfit([ClusterNode(0, 0)], Resources(gpus=8)) is None
    )  # an autoscaler's, who does not tell
    assert ClusterNode(8, 1).holds(Resources(gpus=0.25)) == 4
    assert ClusterNode(8, 2).holds(Resources(gpus=0.4)) == 4  # no share spans two
    assert ClusterNode(3, 1).holds(Resources(gpus=0.25)) == 3


def test_every_process_of_a_gang_has_its_rank() -> None:
    ranks = ranks_of(Resources(gpus=2, nodes=2), "10.0.0.1", 2345)
    assert [[rank["RANK"] for rank in node] for node in ranks] == [["0", "1"], ["2", "3"]]
    assert [[rank["LOCAL_RANK"] for rank in node] for node in ranks] == [["0", "1"], ["0", "1"]]
    assert {rank["WORLD_SIZE"] for node in ranks for rank in node} == {"4"}


@pytest.fixture
def job_server(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A head with a job server that asks for a token: its address, and an environment that has the token."""
    ports = []
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    token = tmp_path / "token"
    token.write_text("a" * 64)
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "DISTLAW_CACHE": str(tmp_path / "cache"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }
    command = [str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus", "1"]
    command += ["--port", str(ports[0]), "--dashboard-port", str(ports[1])]
    command += ["--dashboard-agent-listen-port", str(ports[2])]
    command += ["--temp-dir", f"/tmp/distlaw-{os.getpid()}", "--object-store-memory", "100000000"]
    with (tmp_path / "head.log").open("wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and head.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", ports[1])) == 0:
                break
        time.sleep(0.2)
    yield f"http://127.0.0.1:{ports[1]}", environment
    head.send_signal(signal.SIGTERM)
    head.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_runs_as_a_job(
    small_spec: dict[str, Any], tmp_path: Path, job_server: tuple[str, dict[str, str]]
) -> None:
    """Through the real job server: refused without the token, and to the end with it."""
    address, environment = job_server
    path, store = tmp_path / "spec.yaml", tmp_path / "store"
    path.write_text(yaml.safe_dump(small_spec))
    command = [str(BIN / "python"), "-m", "distlaw", "sweep", "submit", str(path), "--address", address]

    def submit(where: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        arguments = [*command, "--store", where]
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)

    without = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH")}
    refused = submit(str(store), without | {"HOME": str(tmp_path)})
    assert refused.returncode == 2
    assert "denies access" in refused.stderr
    assert "RAY_AUTH_MODE=token" in refused.stderr
    relative = submit("runs/here", environment)
    assert relative.returncode == 2
    assert "must be a URL" in relative.stderr
    sent = submit(str(store), environment)
    assert sent.returncode == 0, sent.stderr
    assert "7 steps submitted as raysubmit_" in sent.stdout
    deadline = time.monotonic() + 240
    while not (store / "sweep.json").exists() or len(status(Store(store)).of("done")) < 7:
        assert time.monotonic() < deadline
        time.sleep(1)


def test_nobody_at_the_address_is_said_at_once(small_spec: dict[str, Any], tmp_path: Path) -> None:
    sweep = parse_sweep(small_spec)
    with pytest.raises(InputError, match=r"--address http://127.0.0.1:1: no job server answers"):
        submission.submit("http://127.0.0.1:1", sweep, str(tmp_path))
    with pytest.raises(InputError, match=r"--address nonsense: Invalid address format"):
        submission.submit("nonsense", sweep, str(tmp_path))


def test_a_job_takes_along_what_it_needs(small_spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = parse_sweep(small_spec)
    with submission.working_directory(sweep) as folder:
        sent = yaml.safe_load((folder / submission.SPEC).read_text())
        (text,) = folder.glob(sent["corpus"]["source"])
        assert text.read_text() == Path(sweep.corpus.source).read_text()
        assert {path.name for path in folder.iterdir()} == {*submission.PACKAGES, "texts", submission.SPEC}
        assert (folder / "scaling" / "costs" / "hardware.csv").is_file()
        monkeypatch.chdir(folder)
        assert {step.id for step in dag_of(parse_sweep(sent)).steps} == {
            step.id for step in dag_of(sweep).steps
        }
    monkeypatch.setattr(submission, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="too large to upload"), submission.working_directory(sweep):
        pass
    assert "numpy" in "".join(submission.pinned_requirements())
    assert not any(pin.startswith(("torch", "ray")) for pin in submission.pinned_requirements())
