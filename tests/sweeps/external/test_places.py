"""Places where commands run: gangs of nodes, stores without a disk, caps, and submission."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands_in_tests import run, trainer

import sweeps
from sweeps.data.corpus import planned_tokens
from sweeps.execute.jobs import Job, main
from sweeps.execute.submission import working_directory
from sweeps.external.command import Place, command_line, environment
from sweeps.external.job import describe_job
from sweeps.external.run import Node
from sweeps.spec.resources import Resources
from sweeps.store.leases import attempts
from sweeps.store.store import Store
from sweeps.watch.status import status


def test_a_store_without_a_disk(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Files of the attempt are in the cache of this machine, and removed when it is done."""
    monkeypatch.setattr("sweeps.external.run.cache_dir", lambda: tmp_path / "cache")
    place = f"memory://{tmp_path.name}"
    assert run(spec, place).complete  # type: ignore[arg-type]
    assert sweeps.results(place).iloc[0]["loss"] > 0
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_flops_that_a_command_declares_are_what_is_spent(spec: dict[str, Any], tmp_path: Path) -> None:
    """The plan's FLOPs are reserved; what the command declares, and the time of its process, are spent."""
    (planned,) = sweeps.load(spec).dag.steps
    declared = 0.5 * planned.flops
    result = json.dumps({"params": planned.shape.params, "loss": 3.0, "flops": declared})
    spec["trainer"] = trainer("sleep=1", f"result={result}".replace("{", "{{").replace("}", "}}"))
    spec["supervised"][0]["seeds"] = [0, 1, 2]
    spec["caps"] = {"flops": 3.1 * planned.flops}
    state = run(spec, tmp_path / "store")
    assert state.complete, state
    table = sweeps.results(tmp_path / "store")
    assert list(table["flops"]) == pytest.approx([declared] * 3)
    assert status(Store(tmp_path / "store")).spent.flops == pytest.approx(3 * declared)
    assert min(table["seconds"]) >= 1


def test_a_command_of_a_gang_is_told_its_node(
    spec: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = pytest.importorskip("sweeps.execute.executors.ray_executor")
    spec["trainer"] = {
        "command": [
            "torchrun",
            "--nproc-per-node={gpus}",
            "--node-rank={node}",
            "--nnodes={nodes}",
            "train.py",
        ],
        "version": "1",
    }
    (step,) = sweeps.load(spec).dag.steps
    resources = Resources(gpus=8, nodes=2, cpus=4)
    job = Job(steps=(step,), numbers=(1,), resources=resources)
    ranks = ray.ranks_of(resources, "10.0.0.1", 2345, each=job.processes)
    assert [len(of_node) for of_node in ranks] == [1, 1]  # the command is started once on each node
    for name, value in ranks[1][0].items():
        monkeypatch.setenv(name, value)
    node = Node.here()
    assert (node.number, node.count, node.leads) == (1, 2, False)
    told = describe_job(step, planned_tokens(step.corpus, step.corpus_fingerprint), {}, None)
    where = Path("/x")
    place = Place(job=where, out=where, checkpoints=where, attempt=1, cpus=4, gpus=8, nodes=2, node=1)
    assert command_line(step.trainer, told, place)[1:4] == [
        "--nproc-per-node=8",
        "--node-rank=1",
        "--nnodes=2",
    ]
    env = environment(step.trainer, told, place, "mark")
    assert (env["PET_NNODES"], env["PET_NODE_RANK"], env["PET_MASTER_ADDR"], env["PET_MASTER_PORT"]) == (
        *("2", "1", "10.0.0.1", "2345"),
    )
    assert env["OMP_NUM_THREADS"] == "4"
    alone = Place(job=where, out=where, checkpoints=where, attempt=1, gpus=2)
    assert "RANK" not in environment(step.trainer, told, alone, "mark")


def test_files_that_a_command_names_are_submitted(
    spec: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scripts").mkdir()
    Path("scripts/train.py").write_text("pass")
    spec["trainer"] = {"command": ["python", "scripts/train.py", "../outside", "--steps=3"], "version": "1"}
    with working_directory(sweeps.load(spec).spec) as folder:
        assert (folder / "scripts/train.py").read_text() == "pass"


def test_a_node_that_does_not_lead_runs_its_command_and_writes_no_result(
    spec: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sweeps.execute.steps.step import run_steps

    spec["trainer"] = {"command": ["sh", "-c", "echo $NODE_RANK > $DISTLAW_CHECKPOINTS/node"], "version": "1"}
    (step,) = sweeps.load(spec).dag.steps
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    store = Store(tmp_path / "store")
    store.create()
    ((_, result),) = run_steps(store, [step], cpus=1, gpus=1, nodes=2)
    assert result == {}
    assert (tmp_path / "store" / step.id / "checkpoints" / "node").read_text() == "1\n"
    assert not attempts(store, step.id)


def test_a_batch_system_starts_commands_too(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``python -m sweeps.run_step STORE ID``, which Slurm and others start, and start again after 75."""
    spec["trainer"] = trainer("again=yes")
    sweep = sweeps.load(spec)
    store, (step,) = Store(tmp_path / "store"), sweep.dag.steps
    sweep.jobs(tmp_path / "store")  # records the sweep
    assert main([store.root, step.id]) == 75
    assert main([store.root, step.id[:8]]) == 0
    assert store.result(step.id)


def test_no_other_file_of_a_store_names_a_command(spec: dict[str, Any], tmp_path: Path) -> None:
    sweep = sweeps.load(spec)
    (step,) = sweep.dag.steps
    store, trace = Store(tmp_path / "store"), tmp_path / "trace"
    evil = step.as_json() | {"trainer": {"command": ["touch", str(trace)], "version": "1"}}
    store.create()
    for name in ("step.json", "failure.json"):
        store.write({"reason": "", "attempt": 1, "step": evil, **evil}, step.id, name)
    store.write({**evil, "argv": ["touch", str(trace)]}, step.id, "attempts", "0001.json")
    store.write({**evil, "ending": "lost"}, step.id, "attempts", "0001.end.json")
    (tmp_path / "store" / step.id / "command-0001").mkdir()
    (tmp_path / "store" / step.id / "command-0001" / "job.json").write_text(json.dumps(evil))
    assert sweep.run(tmp_path / "store", executor="inline").complete
    assert not trace.exists()


@pytest.mark.slow
@pytest.mark.ray
def test_ray_runs_commands(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["resources"] = []
    spec["hardware"] = {}
    state = run(spec, tmp_path / "store", executor="ray", cores=1)
    assert state.complete, state
    (attempt,) = attempts(Store(tmp_path / "store"), next(iter(state.done)))
    assert attempt.ending == "done"
