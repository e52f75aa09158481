"""GPUs of a machine are shared out so that none is promised twice and whole ones stay whole."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.errors import InputError
from sweeps.execute.executors import gpus
from sweeps.execute.executors.gpus import visible_gpus
from sweeps.execute.executors.job_placement import Demand, JobPlacement, NodeCapacity, Slot
from sweeps.execute.executors.local import ProcessExecutor
from sweeps.execute.jobs import Job
from sweeps.execute.scheduler import run
from sweeps.resolve import dag_of
from sweeps.spec.resources import Resources
from sweeps.spec.spec import parse_sweep
from sweeps.store.leases import attempts
from sweeps.store.outcomes import Ending
from sweeps.store.store import Store

ASKED = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0]), max_size=30)


def place(placement: JobPlacement, share: float) -> Slot | None:
    """Place a job that has no steps."""
    found = placement.choose(deque([()]), lambda _: Demand(Resources(gpus=share), 1.0))
    return found[0] if found else None


@given(ASKED, st.data())
def test_no_gpu_is_promised_twice(asked: list[float], data: st.DataObject) -> None:
    placement, held = JobPlacement([NodeCapacity("n", 64, 4)]), list[tuple[float, str, list[int]]]()
    for share in asked:
        before = [sum(min(1.0, had) for had, _, used in held if k in used) for k in range(4)]
        slot = place(placement, share)
        if slot is None:  # rightly
            assert sum(1 - taken >= min(1.0, share) - 1e-9 for taken in before) < max(1, share)
            continue
        (used,) = placement.gpus_of(slot.job)
        assert len(set(used)) == Resources(gpus=share).gpu_count
        assert all(before[k] + min(1.0, share) <= 1 + 1e-9 for k in used)
        held.append((share, slot.job, used))
        if data.draw(st.booleans()):
            placement.release(held.pop(data.draw(st.integers(0, len(held) - 1)))[1])


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("0,3", ("0", "3")),
        ("GPU-a1,GPU-b2", ("GPU-a1", "GPU-b2")),
        ("", ()),
        ("1,-1,2", ("1",)),
        ("NoDevFiles", ()),
    ],
)
def test_the_environment_says_which_gpus_there_are(
    told: str, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert visible_gpus() == found


def test_otherwise_the_drivers_of_the_kernel_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in gpus.VISIBLE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpus, "NVIDIA", tmp_path / "nvidia")
    monkeypatch.setattr(gpus, "AMD", tmp_path / "amd")
    assert visible_gpus() == ()
    for number, gpu in enumerate(["0", "51", "52"]):  # the first is a processor
        (tmp_path / "amd" / str(number)).mkdir(parents=True)
        (tmp_path / "amd" / str(number) / "gpu_id").write_text(gpu + "\n")
    assert visible_gpus() == ("0", "1")
    (tmp_path / "nvidia" / "0000:01:00.0").mkdir(parents=True)
    assert visible_gpus() == ("0",)


def test_steps_see_their_share_and_a_step_on_two_gpus_is_a_gang(
    small_spec: dict[str, Any], own_cache: Path, tmp_path: Path
) -> None:
    """With GPUs that are only numbers: the processes train on the CPU, the larger model in two of them."""
    small_spec |= {"teachers": [], "students": []}
    small_spec["supervised"] = [{"params": ["3k", "7k"], "tokens": ["32k"]}]
    small_spec["resources"] = [{"gpus": 0.5}, {"from_params": "5k", "gpus": 2}]
    sweep, store = parse_sweep(small_spec), Store(tmp_path / "store")
    store.create()
    executor = ProcessExecutor(store, 2, ["4", "7"])
    assert executor.usual == Resources(gpus=0.25)
    assert "this machine has 2 GPUs" in str(executor.misfit(Resources(gpus=3)))
    small, large = dag_of(sweep).steps
    try:
        assert run(dag_of(sweep), store, executor, lambda step: 1.0, lambda state: None, sweep).complete
    finally:
        executor.close()
    assert place(executor.placement, 2) is not None  # both are free again
    log = (Path(store.root, small.id, "attempts", "0001.log")).read_text()
    assert "in process" in log
    assert attempts(store, large.id)[-1].told["gpus"] == 2
    assert (Path(store.root, large.id, "attempts", "0001.log")).read_text().count("in process") == 2


def test_a_dropped_job_gives_its_gpus_back(
    small_spec: dict[str, Any], own_cache: Path, tmp_path: Path
) -> None:
    small_spec |= {"supervised": [{"params": ["3k"], "tokens": ["4M"]}], "teachers": [], "students": []}
    (step,) = dag_of(parse_sweep(small_spec)).steps
    store = Store(tmp_path / "store")
    store.create()
    executor = ProcessExecutor(store, 1, ["0"])
    slot = place(executor.placement, 1)
    assert slot
    job = Job(steps=(step,), numbers=(1,), resources=slot.resources, driver="d.json", name=slot.job)
    executor.submit(job)
    assert place(executor.placement, 0.25) is None
    deadline = time.monotonic() + 60
    while not attempts(store, step.id) and time.monotonic() < deadline:
        executor.wait(0.1)
    executor.drop(job)
    assert place(executor.placement, 1) is not None
    assert attempts(store, step.id)[0].ending is Ending.LOST
    executor.close()


def test_a_machine_without_gpus_says_so(tmp_path: Path, small_spec: dict[str, Any], own_cache: Path) -> None:
    small_spec["resources"] = [{"gpus": 1}]
    sweep, store = parse_sweep(small_spec), Store(tmp_path / "store")
    store.create()
    executor = ProcessExecutor(store, 1, [])
    try:
        with pytest.raises(InputError, match="this machine has no GPUs"):
            run(dag_of(sweep), store, executor, lambda step: 1.0, lambda state: None, sweep)
    finally:
        executor.close()
