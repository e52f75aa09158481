"""Steps of a Slurm allocation: placed by cores and whole GPUs, and on a real Slurm run to their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from real_slurm import awaited, slurm_place, slurm_running

import sweeps
from scaling.errors import InputError
from sweeps.execute.executors import slurm
from sweeps.execute.executors.job_placement import Demand
from sweeps.execute.executors.slurm import SlurmExecutor, SlurmNode, SlurmStep, cpus_of, srun_command
from sweeps.execute.jobs import Job
from sweeps.resolve import dag_of
from sweeps.spec.resources import Resources
from sweeps.spec.spec import parse_sweep
from sweeps.store.leases import attempts
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store


def nodes_of(*sizes: tuple[int, int]) -> list[SlurmNode]:
    return [
        SlurmNode(name=f"n{number}", address=f"10.0.0.{number}", cpus=cpus, gpus=gpus)
        for number, (cpus, gpus) in enumerate(sizes)
    ]


@pytest.fixture
def job(small_spec: dict[str, Any], own_cache: Path) -> Callable[..., Job]:
    (step, *_) = dag_of(parse_sweep(small_spec)).steps

    def make(**resources: Any) -> Job:
        return Job(steps=(step,), numbers=(1,), resources=Resources(**resources))

    return make


def placed(executor: SlurmExecutor, job: Job) -> Job | None:
    """Return the job on the nodes that are chosen for it; None without room."""
    slots = executor.placement.choose(deque([job.steps]), lambda _: Demand(job.resources, 1.0))
    return replace(job, name=slots[0].job, nodes=slots[0].nodes) if slots else None


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SlurmExecutor:
    """One whose jobs start nothing."""
    monkeypatch.setattr(slurm, "allocation", lambda: nodes_of((8, 2), (8, 2), (4, 0)))
    monkeypatch.setattr(SlurmStep, "start", lambda self, store: None)
    return SlurmExecutor(Store(tmp_path))


def test_outside_an_allocation_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    with pytest.raises(InputError, match=r"no Slurm allocation .* `distlaw sweep launch slurm`"):
        SlurmExecutor(Store(tmp_path))


def test_slurm_s_short_form_of_cores() -> None:
    assert cpus_of("16(x2),8") == [16, 16, 8]
    assert cpus_of("4") == [4]


def test_what_srun_cannot_give_is_said(executor: SlurmExecutor) -> None:
    assert (executor.slots, executor.usual) == (8, Resources(gpus=1))  # the third node has cores only
    assert "whole GPUs only" in str(executor.misfit(Resources(gpus=0.25)))
    assert "2 of the allocation's 3 nodes" in str(executor.misfit(Resources(gpus=2, nodes=3)))
    assert executor.misfit(Resources(gpus=2, nodes=2)) is None


def test_small_steps_leave_whole_nodes_to_gangs(executor: SlurmExecutor, job: Callable[..., Job]) -> None:
    first, second, third = (
        placed(executor, job(**asked)) for asked in ({"gpus": 1}, {"gpus": 1}, {"cpus": 4})
    )
    assert first and second and third
    for each in (first, second, third):
        executor.submit(each)
    assert [node.name for node in executor.busy[0].nodes] == list(first.nodes)
    assert first.nodes == second.nodes
    assert set(first.nodes) < {"n0", "n1"}
    assert third.nodes == ("n2",)  # cores without GPUs first
    assert placed(executor, job(gpus=2, nodes=2)) is None
    assert executor.misfit(Resources(gpus=2, nodes=2)) is None  # later
    executor._free(executor.busy[0])
    executor._free(executor.busy[0])
    assert placed(executor, job(gpus=2, nodes=2))


def test_a_step_takes_its_share_of_memory(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the first would take all that was asked for the node, and the next wait for it."""
    nodes = nodes_of((8, 2), (16, 2))
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "64000")
    command = srun_command(job(cpus=2, gpus=2, nodes=2), nodes)
    assert {"--nodes=2", "--nodelist=n0,n1", "--cpus-per-task=2", "--gpus-per-node=2", "--mem=8000M"} <= set(
        command
    )
    monkeypatch.delenv("SLURM_MEM_PER_NODE")
    assert not any(word.startswith("--mem") for word in srun_command(job(), nodes[:1]))


def test_a_failure_of_any_node_is_one_of_the_step(job: Callable[..., Job], tmp_path: Path) -> None:
    def ended(script: str) -> Any:
        step = SlurmStep(job(), nodes_of((1, 0)))
        step.process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
        while step.read():
            pass
        (outcome,) = step.outcomes()
        return outcome.ending, outcome.reason, outcome.gone

    step = job().steps[0].id
    done = f'{{"outcomes": [["{step}", 1, "done", "", true, 2.5]]}}'
    failed = f'{{"outcomes": [["{step}", 1, "failed", "no room", true, null]]}}'
    nothing = '{"outcomes": []}'
    assert ended(f"echo a library says hello; echo '{done}'; echo '{nothing}'") == (Ending.DONE, "", True)
    assert ended(f"echo '{failed}'; echo '{done}'")[1] == "no room"
    assert ended("kill -9 $$") == (Ending.LOST, "srun ended with -9 and told nothing", False)


SETTINGS = """
SlurmctldHost=localhost
SlurmctldPort=27817
GresTypes=gpu
NodeName=n1 NodeHostname=localhost Port=27818 CPUs=2 RealMemory=2000 Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname=localhost Port=27819 CPUs=2 RealMemory=2000 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def real_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A controller and two nodes on this machine, each with two cores and two GPUs that are only files."""
    place = slurm_place(tmp_path, SETTINGS)
    for number in range(2):
        (place / f"gpu{number}").touch()
    (place / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={place}/gpu[0-1]\n")
    monkeypatch.setenv("SLURM_CONF", str(place / "slurm.conf"))
    nodes = (["slurmd", "-D", "-N", name] for name in ("n1", "n2"))
    with slurm_running(place, ["slurmctld", "-D"], *nodes) as says:
        yield says


@pytest.mark.slow
def test_a_sweep_on_a_real_slurm_runs_to_its_end(
    real_slurm: Callable[..., str], small_spec: dict[str, Any], own_cache: Path, tmp_path: Path
) -> None:
    """Steps on one GPU each, and one on both nodes, whose processes are killed once; as from the command line."""
    small_spec |= {"teachers": [], "students": []}
    small_spec["supervised"] = [
        {"params": ["3k"], "tokens": ["32k"], "seeds": [0, 1]},
        {"params": ["7k"], "tokens": ["400k"]},
    ]
    small_spec["resources"] = [{"gpus": 1}, {"from_params": "5k", "gpus": 1, "nodes": 2}]
    spec, store = tmp_path / "spec.yaml", Store(tmp_path / "store")
    spec.write_text(yaml.safe_dump(small_spec))
    loaded = sweeps.load(spec)
    (submit, _) = loaded.launch("slurm", tmp_path / "out", store=store.root, cpus=2, gpus=2, hours=0.2)
    script = submit.split()[1]
    assert real_slurm("sbatch", "--test-only", script) == ""
    real_slurm("sbatch", script)
    gang = loaded.dag.steps[-1].id
    awaited(lambda: attempts(store, gang) and attempts(store, gang)[0].done, 240)
    found = subprocess.run(
        ["pgrep", "-f", "executors.slurm_task"], capture_output=True, text=True
    ).stdout.split()
    os.kill(int(found[0]), signal.SIGKILL)
    awaited(lambda: not real_slurm("squeue", "-h").strip(), 400)
    (log,) = (tmp_path / "out").glob("distlaw-*.log")
    assert "3 of 3 steps done" in log.read_text(), log.read_text()[-2000:]
    told = [attempt.told for attempt in attempts(store, gang)]
    assert [each["nodes"] for each in told] == [2, 2]  # killed, and again
    assert set(store.results(step.id for step in loaded.dag.steps)) == {step.id for step in loaded.dag.steps}
    assert str(sys.executable) in Path(script).read_text()
