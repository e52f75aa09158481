"""Plans of a sweep: changes on the command line, graph, cost, design findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from distlaw.cli import app
from scaling.errors import InputError
from sweeps.api import load
from sweeps.estimate.fit_preview import expected_findings
from sweeps.estimate.graph import layout, nodes_of_dag, tree_lines, write_graph
from sweeps.resolve import dag_of
from sweeps.spec.parsing.overrides import apply_overrides
from sweeps.spec.spec import Sweep, load_sweep, parse_sweep, presets


@pytest.fixture
def spec_file(small_spec: dict[str, Any], tmp_path: Path, own_cache: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_spec))
    return path


def test_changes_reach_fields_and_lists_and_leave_the_rest() -> None:
    spec = {"name": "a", "students": [{"params": [1], "tokens": [2]}]}
    changed = apply_overrides(
        spec, ["students[0].params=[10k,30k]", "training.learning_rate=0.02", "students[1].params=[5]"]
    )
    assert changed == {
        "name": "a",
        "students": [{"params": ["10k", "30k"], "tokens": [2]}, {"params": [5]}],
        "training": {"learning_rate": 0.02},
    }
    assert spec["students"] == [{"params": [1], "tokens": [2]}]
    everywhere = apply_overrides(changed, ["students.params=[7]", "students.1.tokens=[9]"])
    assert everywhere["students"] == [{"params": [7], "tokens": [2]}, {"params": [7], "tokens": [9]}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("learning_rate", r"--set: expected FIELD=VALUE"),
        ("a b=1", r"--set: 'a b' is not a field"),
        ("students[3].params=[1]", r"--set students\[3\].params: \[\{'params'.* has no item \[3\]"),
        ("name.params=[1]", r"--set name.params: 'small' has no field params"),
        ("students.sizes=[1]", r"students\[0\].sizes: no such field; did you mean 'params'\?"),
        ("name=[", r"--set name: not valid YAML"),
        ("training.learning_rat=1", r"training.learning_rat: no such field; did you mean 'learning_rate'\?"),
    ],
)
def test_changes_that_make_no_sense_are_explained(spec_file: Path, change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_sweep(spec_file, [change])


def test_the_schema_accepts_the_presets_as_written_and_knows_every_field() -> None:
    schema = json.loads(CliRunner().invoke(app, ["sweep", "schema"]).output)
    for text in presets().values():
        jsonschema.validate(yaml.safe_load(text), schema)
    with pytest.raises(jsonschema.ValidationError, match="peak_rat"):
        jsonschema.validate({"name": "a", "training": {"peak_rat": 1}}, schema)
    assert "mu-P" in schema["$defs"]["Training"]["properties"]["learning_rate"]["description"]


@pytest.mark.parametrize(
    ("field", "bad", "good"),
    [
        ("corpus.heldout", 1, 0.5),
        ("corpus.seed", -1, 0),
        ("corpus.context", 4, "1k"),
        ("students.seeds", [2**31], [0, "1k"]),
        ("students.params", [0], ["13k", 2e4]),
        ("hardware.dollars_per_hour", 0, 2.5),
        ("training.learning_rate", 0, "1e-3"),
        ("training.decay_fraction", 0.95, 0.9),
    ],
)
def test_the_schema_checks_the_bounds_that_a_spec_has(field: str, bad: Any, good: Any) -> None:
    schema, (part, name) = Sweep.model_json_schema(), field.split(".")
    needed = {"source": "a.txt"} if part == "corpus" else {}
    for value, right in ((bad, False), (good, True)):
        given = {name: value} | needed
        sizes = {"params": [1], "tokens": [1]} if part == "students" else {}
        spec = {"name": "a", part: [sizes | given] if part == "students" else given}
        assert jsonschema.Draft202012Validator(schema).is_valid(spec) is right


def test_a_plan_is_told_in_words_json_and_pictures(spec_file: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    store = ["--store", str(tmp_path / "store")]
    hardware = ["--set", "hardware={name: h100, dollars_per_hour: 2}", "--set", "resources=[{gpus: 1}]"]
    told = runner.invoke(app, ["sweep", "plan", str(spec_file), *store, *hardware]).output
    assert "on 1 h100" in told
    assert "GPU-hours, $0.00" in told
    assert "cannot determine the 5 free coefficients" in told  # seven runs are too few
    drawn = tmp_path / "graph.svg"
    plan = json.loads(
        runner.invoke(app, ["sweep", "plan", str(spec_file), *store, "--json", "--graph", str(drawn)]).output
    )
    assert drawn.stat().st_size > 3000
    assert sum(step["estimated_seconds"] for step in plan["steps"]) == pytest.approx(
        plan["left"]["device_seconds"]
    )
    assert plan["findings"][0]["level"] == "refuse"
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["caps.dollars=1"], r"caps.dollars: no price is known; give hardware.name"),
        (["caps.hours=1e-6"], r"caps.hours: the sweep needs about .* hours, above its cap of 1e-06"),
        (
            ["hardware.name=h100", "caps.gpu_hours=1e-9"],
            r"caps.gpu_hours: the sweep needs about .* GPU-hours, above its cap of 1e-09",
        ),
        (["caps.flops=1e6"], r"caps.flops: the sweep needs about .* FLOPs, above its cap of 1e\+06"),
        (["hardware.name=abacus"], r"hardware\.name: no hardware abacus: known are .*DISTLAW_HARDWARE names"),
        (["hardware=h100"], r"hardware: expected fields, such as \{name: h100\}"),
        (["caps=3"], r"caps: expected fields, such as \{name: value\}, found 3"),
        (
            ["hardware.name=v100", "training.precision=bf16"],
            r"hardware\.name: v100 has no bf16 peak in the table, only fp16, fp32; choose one of them in training\.precision",
        ),
        (
            ["resources=[{gpus: 1.5}]"],
            r"resources\[0\]: gpus: 1.5 is neither a share of one nor a whole number",
        ),
        (
            ["resources=[{gpus: 0.5, nodes: 2}]"],
            r"resources\[0\]: gpus: 0.5, but a step on 2 nodes has whole GPUs on each",
        ),
    ],
)
def test_a_plan_beyond_its_caps_is_refused(spec_file: Path, changes: list[str], message: str) -> None:
    arguments = [part for change in changes for part in ("--set", change)]
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(app, ["sweep", "plan", str(spec_file), *arguments], catch_exceptions=False)


def test_gpus_need_a_name(spec_file: Path) -> None:
    with pytest.raises(InputError, match=r"--gpus: 2, but the spec names no GPU.* hardware.name=h100"):
        CliRunner().invoke(app, ["sweep", "plan", str(spec_file), "--gpus", "2"], catch_exceptions=False)


def test_the_graph_puts_everything_behind_what_it_needs(small_spec: dict[str, Any], tmp_path: Path) -> None:
    small_spec["training"] |= {"schedule": "wsd"}
    dag = dag_of(parse_sweep(small_spec))
    places = layout(nodes_of_dag(dag, set()))
    assert len(set(places.values())) == len(dag.steps)
    for step in dag.steps:
        assert all(places[need.id][0] < places[step.id][0] for need in step.needs)
    lines = list(tree_lines(dag, {dag.steps[0].id}))
    assert len(lines) == len(dag.steps)
    assert sum("✔" in line for line in lines) == 1
    with pytest.raises(InputError, match=r"--graph: .*graph.gif must end in .png, .svg, .pdf, .txt"):
        write_graph(dag, set(), tmp_path / "graph.gif")


def test_runs_too_short_for_any_law_do_not_reject_the_planned_table(small_spec: dict[str, Any]) -> None:
    """The law predicts more than 12 nats/token for 500 steps of 16 tokens, which no run would show."""
    small_spec["corpus"]["context"] = small_spec["training"]["batch_tokens"] = 16
    small_spec["training"]["warmup_tokens"] = 800
    for role in ("supervised", "teachers", "students"):
        small_spec[role][0] |= {"params": ["7k"], "tokens": ["8k", "9k"]}
    found = expected_findings(dag_of(parse_sweep(small_spec)))
    assert found
    assert not any("uniform guess" in str(finding) for finding in found)


def test_a_size_between_those_of_the_ladder_is_named_with_the_nearest(small_spec: dict[str, Any]) -> None:
    small_spec["supervised"] = [{"params": ["10k"], "tokens": ["32k"]}]
    warnings = load(small_spec).plan("memory://sizes").warnings
    assert "10K parameters are asked for; the nearest size on the ladder, 7.03K, is trained" in warnings


def test_what_a_design_cannot_show_is_foreseen(small_spec: dict[str, Any]) -> None:
    """One good teacher for all: the quickstart's own design is sound but for its span."""
    sound = expected_findings(dag_of(load_sweep("quickstart")))
    assert [finding.level for finding in sound] == ["warn"]
    one_teacher = ["teachers=[{params: [107k], tokens: [1572864]}]"]
    found = [str(finding) for finding in expected_findings(dag_of(load_sweep("quickstart", one_teacher)))]
    assert any("1 teacher only" in finding for finding in found)
    assert any("every teacher is better" in finding for finding in found)
    assert any(finding.level == "refuse" for finding in expected_findings(dag_of(parse_sweep(small_spec))))


def test_two_rules_of_resources_for_one_size_are_refused(small_spec: dict[str, Any]) -> None:
    rules = [{"gpus": 1}, {"from_params": "1M", "gpus": 2}, {"from_params": 1e6, "gpus": 4}]
    with pytest.raises(
        InputError, match=r"resources: \[1\] and \[2\] both apply from 1M parameters; join them"
    ):
        parse_sweep(small_spec | {"resources": rules})


def test_a_share_of_a_gpu_that_nothing_shares_is_told(small_spec: dict[str, Any], own_cache: Path) -> None:
    alone = {"supervised": [{"params": ["3k"], "tokens": ["32k"]}], "teachers": [], "students": []}
    spec = small_spec | alone | {"hardware": {"name": "h100"}}
    told = "resources: 1 step of 0.25 of a GPU, as if others shared it, and none do"
    assert any(told in each for each in load(spec).plan("memory://shares").warnings)
    whole = load(spec | {"resources": [{"gpus": 1}]}).plan("memory://shares")
    assert not any("share" in each for each in whole.warnings)
    many = load(small_spec | {"hardware": {"name": "h100"}}).plan("memory://shares")
    assert not any("share" in each for each in many.warnings)


def test_a_plan_says_that_its_devices_are_too_few(small_spec: dict[str, Any], own_cache: Path) -> None:
    rules = {"resources": [{"gpus": 8, "nodes": 2}], "hardware": {"name": "h100"}}
    asked = load(small_spec | rules)
    (warning,) = [each for each in asked.plan(devices=8).warnings if each.startswith("resources")]
    assert warning == (
        f"resources: {len(asked.dag.steps)} steps of 1 cpu and 8 gpus on each of 2 nodes cannot run on the 8 "
        "that time is told for; give --gpus 16"
    )
    assert not [each for each in asked.plan(devices=16).warnings if each.startswith("resources")]


def test_a_plan_says_that_steps_have_no_gpu_of_those_named(
    small_spec: dict[str, Any], own_cache: Path
) -> None:
    asked = load(small_spec | {"resources": [{"cpus": 8}], "hardware": {"name": "h100"}})
    (warning,) = [each for each in asked.plan().warnings if each.startswith("resources")]
    assert warning.startswith(f"resources: {len(asked.dag.steps)} steps of 8 cpus and no GPU: time is told")
