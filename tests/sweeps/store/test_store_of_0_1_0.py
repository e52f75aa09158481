"""A store that version 0.1.0 wrote, whose driver was killed in the midst: it is read, and continued.

``data/store-0.1.0.tar.xz`` was made by the last commit of 0.1.0 (fc20d0c) on the text of ``text_file``: seven of
nine steps begun, four done, a cohort of two killed with its driver, one step failed and one cancelled. The
claims were made to look as those of another machine that is patient for a second; checkpoints but the last, and
weights that nothing needs, were removed. ``results.csv`` is what 0.1.0 said of it, ``whole.csv`` what it said of
the same sweep undisturbed.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from distlaw.cli import app
from sweeps import results
from sweeps.dag.expand import Dag
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.steps.provenance import record_sweep
from sweeps.resolve import dag_of
from sweeps.spec.spec import Sweep, parse_sweep
from sweeps.store.leases import attempts
from sweeps.store.store import Store
from sweeps.watch.status import status

OLD = Path(__file__).parent / "data" / "store-0.1.0.tar.xz"
INTERRUPTED, FAILED, CANCELLED = "38c9226b40d2d592", "d3791642afd51c9b", "9ca66f5f008f969b"
DONE = {"2dde3a69df636c79", "bae7deeca59862ce", "a33983b153663116", "14bb1fb4f1e20f6e"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with tarfile.open(OLD) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def store(place: Path) -> Store:
    return Store(place / "store")


@pytest.fixture
def sweep(place: Path, text_file: Path, own_cache: Path) -> Sweep:
    """The spec as it was written for 0.1.0, with the names that its fields had then."""
    spec: dict[str, Any] = yaml.safe_load((place / "spec.yaml").read_text())
    spec["corpus"]["source"] = str(text_file)
    return parse_sweep(spec)


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["sweep", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_its_status_and_its_results_are_what_0_1_0_said(place: Path, store: Store) -> None:
    found = status(store)
    states = {step.id: step.state for step in found.steps}
    assert {step for step, state in states.items() if state == "done"} == DONE
    reasons = {step.id: step.reason for step in found.of("failed")}
    assert reasons == {FAILED: "it broke", CANCELLED: "it was cancelled"}
    assert states[INTERRUPTED] == "ready"
    assert found.spent.flops == pytest.approx(8.84e9, rel=0.01)
    assert found.spent.dollars == pytest.approx(0.00874, rel=0.01)
    table = results(store.root)
    assert table.attrs["left_out"] == {}
    finished = table[table["status"] == "done"].reset_index(drop=True)
    told = pd.read_csv(place / "results.csv")
    pd.testing.assert_frame_equal(finished, told, check_dtype=False, check_exact=True)
    assert list(table[table["status"] == "failed"]["run"]) == [FAILED]


def test_it_is_continued_and_nothing_is_run_again(place: Path, store: Store, sweep: Sweep) -> None:
    dag: Dag = dag_of(sweep)
    assert {step["id"] for step in (store.read("steps.json") or {})["steps"]} == {s.id for s in dag.steps}
    before = {path: path.read_bytes() for path in Path(store.path).glob("*/result.json")}
    record_sweep(store, sweep, dag)
    assert said("status", store.root)
    state = run(dag, store, InlineExecutor(store), lambda _: 1.0, lambda _: None, sweep)
    assert state.failed == {CANCELLED: "it was cancelled"}
    assert said("retry", store.root)
    state = run(dag, store, InlineExecutor(store), lambda _: 1.0, lambda _: None, sweep)
    assert state.complete
    assert {path: path.read_bytes() for path in before} == before
    assert {step.id: len(attempts(store, step.id)) for step in dag.steps if step.id in DONE} == dict.fromkeys(
        DONE, 1
    )
    first, second = attempts(store, INTERRUPTED)
    assert first.ending is None
    assert second.told["began"] >= first.done > 0
    table = results(store.root).set_index("run")
    whole = pd.read_csv(place / "whole.csv").set_index("run")
    assert set(table.index) == set(whole.index)
    same = ["kind", "params", "tokens", "teacher", "method", "seed", "epochs", "flops", "setting", "status"]
    pd.testing.assert_frame_equal(table.loc[whole.index, same], whole[same], check_dtype=False)
    assert table.loc[whole.index, "loss"].to_numpy() == pytest.approx(whole["loss"].to_numpy(), rel=1e-3)
    assert len(status(store).of("done")) == len(dag.steps)
