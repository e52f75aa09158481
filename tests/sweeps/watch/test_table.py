"""The runs table: what is in it, and what must not be mixed in it."""

from __future__ import annotations

import json
import re
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from distlaw.cli import app
from scaling.errors import InputError
from sweeps import results
from sweeps.execute.executors.local import InlineExecutor
from sweeps.execute.scheduler import run
from sweeps.execute.steps.provenance import record_sweep
from sweeps.resolve import dag_of
from sweeps.spec.spec import parse_sweep
from sweeps.store.store import Store
from sweeps.watch.runs_table import ANOTHER_SETTING, ANOTHER_VERSION, teacher_notes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def sweep_into(store: Store, spec: dict[str, Any]) -> None:
    """Run a sweep of one size, alone."""
    sweep = parse_sweep(spec | {"teachers": [], "students": []})
    dag = dag_of(sweep)
    store.create()
    record_sweep(store, sweep, dag)
    assert run(dag, store, InlineExecutor(store), lambda _: 1.0, lambda _: None).complete


def rewrite(store: Store, run: str, **fields: object) -> None:
    """Change fields of the step in a result."""
    path = Path(store.path, run, "result.json")
    result = json.loads(path.read_text())
    result["step"] |= fields
    path.write_text(json.dumps(result))


@pytest.fixture
def one_run(small_spec: dict[str, Any]) -> dict[str, Any]:
    return small_spec | {"supervised": [{"params": ["3k"], "tokens": ["32k"]}]}


def test_runs_under_other_rules_or_texts_are_kept_apart(
    one_run: dict[str, Any], store: Store, text_file: Path, own_cache: Path
) -> None:
    sweep_into(store, one_run)
    first = results(store.root)
    sweep_into(store, one_run | {"training": one_run["training"] | {"learning_rate": 0.02}})
    second = results(store.root)
    text_file.write_text(text_file.read_text() + "\n\nOne more paragraph.")
    sweep_into(store, one_run)
    third, everything = results(store.root), results(store.root, everything=True)
    assert len(first) == len(second) == len(third) == 1
    assert len(everything) == everything["setting"].nunique() == 3
    assert set(everything["run"]) == {*first["run"], *second["run"], *third["run"]}


def test_runs_whose_teacher_is_gone_are_told() -> None:
    table = pd.DataFrame(
        {"teacher": [None, "aaaabbbbcccc", "aaaabbbbcccc", "d" * 12], "teacher_loss": [nan, nan, nan, 2.0]}
    )
    (note,) = teacher_notes(table)
    assert note.startswith("! 2 of 4 runs without teacher_loss")
    assert "aaaabbbb;" in note
    assert teacher_notes(table[3:]) == []


def test_a_longer_sweep_adds_to_the_same_table(
    one_run: dict[str, Any], store: Store, own_cache: Path
) -> None:
    sweep_into(store, one_run)
    sweep_into(store, one_run | {"name": "more", "supervised": [{"params": ["7k"], "tokens": ["32k"]}]})
    assert sorted(results(store.root)["params"] > 5000) == [False, True]


def test_the_aspect_ratio_is_the_run_s_own(one_run: dict[str, Any], store: Store, own_cache: Path) -> None:
    sweep_into(store, one_run)
    sweep_into(store, one_run | {"aspect_ratio": 16, "supervised": [{"params": ["13k"], "tokens": ["32k"]}]})
    table = results(store.root).set_index("params")["aspect_ratio"]
    assert sorted(table.items()) == [(4176, 32.0), (14040, 16.0)]


def test_a_failed_run_says_what_it_was(one_run: dict[str, Any], store: Store, own_cache: Path) -> None:
    sweep_into(store, one_run)
    (step,) = store.steps()
    failure = {"reason": "it broke", "step": store.read(step, "step.json")}
    (Path(store.path) / step / "result.json").unlink()
    store.write(failure, step, "failure.json")
    (row,) = results(store.root).to_dict("records")
    assert (row["status"], row["reason"], row["kind"], row["tokens"]) == (
        "failed",
        "it broke",
        "supervised",
        32000,
    )


def test_runs_of_another_version_are_left_out(one_run: dict[str, Any], store: Store, own_cache: Path) -> None:
    sweep_into(store, one_run)
    (path,) = Path(store.path).glob("*/result.json")
    result = json.loads(path.read_text())
    result["step"]["schema"] = 1
    path.write_text(json.dumps(result))
    with pytest.raises(
        InputError,
        match=r"no run of this store is finished yet, or none that .* trained; left out 1 run \(\w+\)",
    ):
        results(store.root)


def test_what_is_left_out_is_told_with_the_reason(
    one_run: dict[str, Any], store: Store, own_cache: Path
) -> None:
    sweep_into(store, one_run | {"training": one_run["training"] | {"learning_rate": 0.02}})
    (slower,) = results(store.root)["run"]
    sweep_into(store, one_run)
    assert list(results(store.root).attrs["left_out"].values()) == [[slower]]
    sweep_into(store, one_run | {"supervised": [{"params": ["3k"], "tokens": ["32k"], "seeds": [0, 1, 2]}]})
    kept, old, changed = results(store.root)["run"]
    rewrite(store, old, schema=4)
    rewrite(store, changed, seed=7)
    table = results(store.root)
    assert list(table["run"]) == [kept]
    assert table.attrs["left_out"] == {
        ANOTHER_SETTING: [slower],
        "written by another version (schema 4, this one has 5)": [old],
        ANOTHER_VERSION: [changed],
    }
    json.dumps(table.attrs)  # as a Parquet file keeps them
    done = CliRunner().invoke(app, ["sweep", "results", store.root])
    assert done.exit_code == 0
    for step in (slower, old, changed):
        assert f"left out 1 run ({step}): " in done.stderr
        assert step not in done.stdout
    assert list(results(store.root, everything=True).attrs["left_out"]) == [
        "written by another version (schema 4, this one has 5)",
        ANOTHER_VERSION,
    ]


def test_a_result_without_its_step_json_is_in_the_table(
    one_run: dict[str, Any], store: Store, own_cache: Path
) -> None:
    sweep_into(store, one_run)
    (run,) = results(store.root)["run"]
    (Path(store.path) / run / "step.json").unlink()
    assert list(results(store.root)["run"]) == [run]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", "0"),
        ("seed", True),
        ("data_seed", 0.5),
        ("steps", "many"),
        ("half", 1),
        ("half", "third"),
        ("aspect_ratio", "32"),
        ("schema", "5"),
    ],
)
def test_mistyped_fields_of_a_step_are_damage(
    field: str, value: object, one_run: dict[str, Any], store: Store, own_cache: Path
) -> None:
    sweep_into(store, one_run)
    (run,) = results(store.root)["run"]
    rewrite(store, run, **{field: value})
    with pytest.raises(
        InputError, match=rf"{run}: .* damaged \({field} is {re.escape(repr(value))}, expected"
    ):
        results(store.root)
