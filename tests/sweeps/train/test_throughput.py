"""Speed, memory and phases of runs, and traces of the profiler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sweeps
from sweeps.dag.ladder import shape_for
from sweeps.execute.steps.provenance import record_sweep
from sweeps.execute.steps.step import run_step
from sweeps.spec.spec import Training
from sweeps.store.store import Store
from sweeps.train.loop import train_together
from sweeps.train.profiling import profiled
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run
from sweeps.train.throughput import PHASES, PhaseClock, peak_flops, throughput, timed

SHAPE = shape_for(13e3, vocab=300, context=32, aspect_ratio=32)
TOKENS = (np.arange(20_000) ** 2 % 299).astype(np.uint16)


def test_phases_add_up_to_the_time_of_a_run_and_a_trace_names_them(tmp_path: Path) -> None:
    recipe = RunRecipe(shape=SHAPE, steps=15, training=Training(batch_tokens=512), seed=0)
    runs = [Run(recipe=recipe), Run(recipe=recipe)]
    with profiled(tmp_path / "traces"):
        assert [error for _, error in train_together(runs, TOKENS, data_seed=0)] == [None, None]
    for run in runs:
        phases = run.clock.seconds
        assert set(phases) == set(PHASES)
        assert 0.5 * run.seconds < sum(phases.values()) < 1.05 * run.seconds
        assert phases["student"] > phases["teacher"]
    trace = json.loads((tmp_path / "traces" / "trace.json").read_text())
    names = {each.get("name") for each in trace["traceEvents"]}
    assert {"student", "optimizer", "data"} <= names


def test_a_phase_that_runs_share_counts_in_equal_parts() -> None:
    clocks = [PhaseClock(), PhaseClock()]
    with timed(clocks, "teacher"):
        sum(range(100_000))
    first, second = (clock.seconds["teacher"] for clock in clocks)
    assert first == second > 0


def test_results_state_speed_and_memory(small_spec: dict[str, Any], tmp_path: Path) -> None:
    """In the runs table too; utilization is left out where the device's peak is not known, as on a CPU."""
    loaded, store = sweeps.load(small_spec), Store(str(tmp_path))
    step = loaded.dag.steps[0]
    store.create()
    record_sweep(store, loaded.spec, loaded.dag)
    found = run_step(store, step)["throughput"]
    assert found["tokens_per_second"] == pytest.approx(step.tokens / run_seconds(store, step.id))
    assert 5e7 < found["peak_memory_bytes"] < 1e11
    assert sum(found["phases"].values()) > 0
    assert "mfu" not in found
    (row,) = sweeps.results(tmp_path).to_dict("records")
    assert row["tokens_per_second"] == found["tokens_per_second"]
    assert row["peak_memory_bytes"] == found["peak_memory_bytes"]
    assert "mfu" not in row


def run_seconds(store: Store, step: str) -> float:
    seconds: float = (store.result(step) or {})["seconds"]["train"]
    return seconds


def test_utilization_is_of_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.train.throughput.peak_flops", lambda _: 1e12)
    found = throughput(tokens=100, seconds=2.0, flops=1e12, precision="bf16", devices=2, phases={})
    assert (found["tokens_per_second"], found["mfu"]) == (50.0, 0.25)
    assert peak_flops("bf16", "NVIDIA H200") == peak_flops("bf16", "h200") == 989.4e12
