"""Sweeps on a real, local Ray: the same numbers as in process, and workers that are killed."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fits
from scaling.errors import InputError
from sweeps import results
from sweeps.dag.expand import Dag, Step
from sweeps.execute.executors.local import InlineExecutor, ProcessExecutor
from sweeps.execute.executors.ray_cluster import start_ray
from sweeps.execute.executors.ray_executor import RayExecutor
from sweeps.execute.executors.ray_futures import RayPool
from sweeps.execute.scheduler import run
from sweeps.execute.steps.provenance import record_sweep
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.records import THROUGHPUT_COLUMNS
from sweeps.store.store import Store

pytestmark = pytest.mark.ray


@pytest.fixture
def dag(small_spec: dict[str, Any], own_cache: Path) -> Dag:
    return dag_of(parse_sweep(small_spec))


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayExecutor]:
    """A local Ray of two cores, for all tests after the first that asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTLAW_CACHE", str(tmp_path_factory.mktemp("cache")))
        found = RayExecutor(Store(tmp_path_factory.mktemp("none")), cores=2)
    yield found
    found.close()


@pytest.fixture
def executor(ray: RayExecutor, tmp_path: Path) -> RayExecutor:
    """That Ray, with nothing running, and an empty store."""
    assert not ray.running
    ray.store = Store(tmp_path / "on-ray")
    ray.store.create()
    return ray


def flops(step: Step) -> float:
    return step.flops


def test_the_draws_of_a_fit_spread_over_ray() -> None:
    """Draws do not depend on where they are computed."""
    table = fits.read_runs(Path(__file__).parents[4] / "notebooks" / "data" / "quickstart-runs.csv")
    with RayPool(cores=2) as pool:
        spread = fits.fit(table, draws=40, executor=pool)
    here = fits.fit(table, draws=40)
    for law, columns in here.draws.items():
        for name, values in columns.items():
            assert spread.draws[law][name] == pytest.approx(values, rel=1e-9)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"--address 127.0.0.1:1: no answer"),
        ("ray://127.0.0.1:1", r"--address ray://127.0.0.1:1: no answer"),
        ("nonsense", r"--address: local, auto, HOST:PORT or ray://HOST:PORT, not 'nonsense'"),
    ],
)
def test_a_cluster_that_is_not_there_is_named_at_once(tmp_path: Path, address: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RayExecutor(Store(tmp_path), address=address)


def test_a_long_name_of_the_temporary_directory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray keeps sockets in it, whose names the system bounds."""
    long = tmp_path / ("x" * 110)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(InputError, match=r"TMPDIR: .*xxx is too long for Ray.*; set RAY_TMPDIR"):
        start_ray("local", 1)


def test_all_executors_give_the_same_losses(
    small_spec: dict[str, Any], dag: Dag, executor: RayExecutor, tmp_path: Path
) -> None:
    here, beside = Store(tmp_path / "inline"), Store(tmp_path / "processes")
    processes = ProcessExecutor(beside, cores=2)
    tables = []
    for store, runner in ((here, InlineExecutor(here)), (beside, processes), (executor.store, executor)):
        store.create()
        record_sweep(store, parse_sweep(small_spec), dag)
        assert run(dag, store, runner, flops, lambda _: None).complete
        tables.append(results(store.root))
    processes.close()
    ours, unmeasured = tables[0], tables[0].columns.difference(["seconds", *THROUGHPUT_COLUMNS])
    assert len(ours) == 7
    for theirs in tables[1:]:
        assert ours[unmeasured].equals(theirs[unmeasured])
    students = ours[ours["kind"] == "distillation"]
    taught = students.merge(ours, left_on="teacher", right_on="run", suffixes=("", "_of_teacher"))
    assert (taught["teacher_loss"] == taught["loss_of_teacher"]).all()
    assert (students["method"] == "forward-kl").all()


def test_a_killed_worker_costs_only_its_own_attempt(dag: Dag, executor: RayExecutor) -> None:
    """SIGKILL the process of a running step as soon as it reports progress."""
    killed: list[int] = []

    def kill_one() -> None:
        while not killed:
            time.sleep(0.02)
            for pid in ray_workers():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return

    def watch(state: Any) -> None:
        under_way = any(executor.store.read(step, "step.json") for step in state.running)
        if under_way and not killer.is_alive() and not killed:
            killer.start()

    killer = threading.Thread(target=kill_one)
    state = run(dag, executor.store, executor, flops, watch)
    killer.join()
    assert killed
    assert state.complete
    assert state.retried >= 1
    assert not state.failed


def test_an_error_in_a_worker_is_told_in_one_line(dag: Dag, executor: RayExecutor, text_file: Path) -> None:
    """The text changes under a planned sweep: every step fails for that reason, none crashes."""
    text_file.write_text(text_file.read_text() + "\n\nOne more paragraph.")
    state = run(dag, executor.store, executor, flops, lambda _: None)
    assert not state.done
    assert len(state.failed) == 3  # both supervised runs and the second teacher; students are blocked
    assert len(state.blocked) == 4
    for reason in state.failed.values():
        assert "has changed since this sweep was planned" in reason
    assert not state.retried


def ray_workers() -> list[int]:
    """Processes that run a task of ours."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(b"ray::_run_elsewhere"):
                found.append(int(entry.name))
    return found
