"""``training.compile: auto`` and lists of sizes: what is decided, where it is kept, and which ids follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sweeps
from scaling.errors import InputError
from sweeps.dag.compile_choice import CompilerCost
from sweeps.dag.expand import Dag
from sweeps.estimate.cost import Throughput
from sweeps.estimate.probes import compile_record
from sweeps.execute.steps.provenance import commit_result, record_sweep
from sweeps.resolve import dag_of
from sweeps.spec.spec import Sweep, parse_sweep
from sweeps.store.store import Store
from sweeps.watch.runs_table import results

SLOW = Throughput([1e4, 1e5], [3e-2, 3e-1], [1e-2, 1e-1], [1e-2, 1e-1], [2e-3, 2e-2])
"""A machine on which the small spec takes hours."""


def ids(dag: Dag) -> set[str]:
    return {step.id for step in dag.steps}


@pytest.mark.parametrize(("name", "same"), [("quickstart", False), ("permissive", True)])
def test_the_table_decides_alike_everywhere_and_ids_are_those_of_true_and_false(
    name: str, same: bool
) -> None:
    """The quickstart is too short to pay for it; every size of the larger sweep does."""
    auto, fixed = (sweeps.load(name, [f"training.compile={how}"], read_text=False) for how in ("auto", same))
    assert ids(auto.dag) == ids(fixed.dag)
    assert all(choice.compiles is same for choice in auto.resolved.compile_choices)
    assert "saves" in str(auto.resolved.compile_choices[0])


def test_a_list_compiles_those_sizes_and_their_caches(small_spec: dict[str, Any]) -> None:
    rules = small_spec["training"] | {"compile": ["7k"]}
    spec = small_spec | {"training": rules, "methods": [{"logits": "cached"}]}
    found = dag_of(parse_sweep(spec)).steps
    for step in found:
        size = step.teacher.shape.params if step.kind == "cache" and step.teacher else step.shape.params
        assert step.training.compile is (size > 5_000)
    assert {step.kind for step in found} == {"pretrain", "cache", "distil"}
    with pytest.raises(InputError, match=r"training.compile: .* below the ladder's smallest"):
        dag_of(parse_sweep(small_spec | {"training": rules | {"compile": [10]}}))
    unknown = {"training": rules | {"compile": ["7k", "15k"]}}
    with pytest.raises(InputError, match=r"compile\[1\]: this sweep trains no model of 15K param"):
        sweeps.load(small_spec | unknown)


@pytest.fixture
def auto(small_spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The small spec with ``compile: auto``, on a slow machine on which compiling is cheap."""
    monkeypatch.setattr(compile_record, "measured_throughput", lambda *_: SLOW)
    monkeypatch.setattr(compile_record, "compiler_cost", lambda _: CompilerCost(measured=True))
    return small_spec | {"training": small_spec["training"] | {"compile": "auto"}}


def test_the_first_driver_decides_for_all(
    auto: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured where it starts, recorded, and read by a machine that would decide otherwise."""
    loaded, store = sweeps.load(auto), str(tmp_path / "store")
    assert not any(step.training.compile for step in loaded.dag.steps)  # by the table
    planned = loaded.plan(store)
    assert all(step.training.compile for step in planned.dag.steps)
    assert "compile    compiled: " in str(planned)
    assert not Store(store).exists()  # a plan leaves nothing
    Store(store).create()
    decided = loaded.at(store, record=True)
    record_sweep(Store(store), decided.spec, decided.dag)
    monkeypatch.setattr(compile_record, "compiler_cost", lambda _: None)
    assert ids(loaded.at(store).dag) == ids(decided.dag) == ids(planned.dag)
    recorded = (Store(store).read("sweep.json") or {})["spec"]
    assert ids(dag_of(Sweep(**recorded))) == ids(decided.dag)  # for batch systems
    elsewhere = loaded.at(str(tmp_path / "other"), record=True)
    assert not any(step.training.compile for step in elsewhere.dag.steps)  # it cannot compile
    grown = auto | {"supervised": [{"params": ["3k", "7k", "15k"], "tokens": ["32k"]}]}
    sizes = {step.shape.params: step.training.compile for step in sweeps.load(grown).at(store).dag.steps}
    assert list(dict(sorted(sizes.items())).values()) == [True, True, False]  # only the new size is decided


def test_runs_that_differ_in_what_is_compiled_are_of_one_law(
    small_spec: dict[str, Any], tmp_path: Path
) -> None:
    rules = small_spec["training"] | {"compile": ["7k"]}
    sweep = parse_sweep(small_spec | {"training": rules})
    dag, store = dag_of(sweep), Store(str(tmp_path))
    store.create()
    record_sweep(store, sweep, dag)
    for step in dag.steps:
        measured = {"loss": 3.0, "loss_se": 0.01, "bits_per_byte": 2.0, "epochs": 0.1}
        commit_result(store, step, measured | {"seconds": {"train": 1.0}})
    assert len({step.setting for step in dag.steps}) == 2
    assert set(results(tmp_path)["setting"]) == {dag.example.setting}
    assert len(results(tmp_path)) == len(dag.steps)
