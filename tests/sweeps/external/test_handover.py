"""Runs that are trained elsewhere: their descriptions, results that are recorded, and schemas that ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import sweeps
from distlaw.cli import app
from scaling.errors import InputError
from sweeps.external import job as job_module
from sweeps.external import result as result_module
from sweeps.store.leases import attempts
from sweeps.store.store import Store


@pytest.fixture
def spec_file(text_file: Path, tmp_path: Path) -> Path:
    """A teacher and a student that are trained elsewhere."""
    path = tmp_path / "spec.yaml"
    grid = {"params": ["4184"], "tokens": ["32k"]}
    spec = {
        "name": "elsewhere",
        "corpus": {"source": str(text_file), "vocab": 300, "context": 32, "heldout": 0.1},
        "training": {"batch_tokens": 64, "warmup_tokens": 1600},
        "teachers": [grid],
        "students": [grid],
        "trainer": {
            "version": "1",
            "command": ["train", "{tokens}", "--out", "{out}"],
            "env": {"N": "{params}"},
        },
    }
    path.write_text(json.dumps(spec))
    return path


def test_jobs_and_record(spec_file: Path, tmp_path: Path) -> None:
    store, run = str(tmp_path / "store"), CliRunner().invoke
    printed = run(app, ["sweep", "jobs", str(spec_file), "--store", store])
    assert printed.exit_code == 0, printed.output
    teacher, student = map(json.loads, printed.stdout.splitlines())
    assert (teacher["ready"], student["ready"], student["needs"]) == (True, False, [teacher["id"]])
    assert teacher["argv"] == ["train", "32000", "--out", f"runs/{teacher['id']}"]
    assert teacher["env"]["N"] == str(teacher["job"]["params"])
    assert student["job"]["teacher"]["loss"] is None
    schema = json.loads(job_module.SCHEMA_FILE.read_text())
    for each in (teacher, student):
        Draft202012Validator(schema).validate(each["job"])

    result = tmp_path / "result.json"
    result.write_text(json.dumps({"params": 4100, "loss": 3.5, "loss_on": "c4 validation"}))
    refused = run(app, ["sweep", "record", store, student["id"], str(result)])
    assert isinstance(refused.exception, InputError)
    assert f"needs the result of {teacher['id']}" in str(refused.exception)
    for each in (teacher, student):
        done = run(app, ["sweep", "record", store, each["id"][:8], str(result)])
        assert done.exit_code == 0, done.output
        assert "loss 3.5000 nats/token, 4,100 parameters" in done.stdout
        (attempt,) = attempts(Store(store), each["id"])
        assert attempt.ending == "done"
        if each is teacher:
            (left,) = sweeps.load(spec_file).jobs(store)
            assert (left["ready"], left["job"]["teacher"]["loss"]) == (True, 3.5)
    again = run(app, ["sweep", "record", store, teacher["id"], str(result)])
    assert isinstance(again.exception, InputError)
    assert "is there already" in str(again.exception)
    row = sweeps.results(store).set_index("run").loc[student["id"]]
    assert (row["teacher_loss"], row["teacher_params"], row["params"]) == (3.5, 4100, 4100)
    assert row["loss_on"] == "c4 validation"
    assert sweeps.load(spec_file).run(store, executor="inline").complete  # nothing is left to run


def test_what_is_not_to_be_recorded(spec_file: Path, tmp_path: Path) -> None:
    ours = sweeps.load(spec_file, ["trainer=null"])
    with pytest.raises(InputError, match="no run of this sweep has a trainer"):
        ours.jobs(tmp_path / "store")
    sweep = sweeps.load(spec_file)
    step = sweep.jobs(tmp_path / "store")[0]["id"]
    result = tmp_path / "result.json"
    for text, message in {
        '{"params": 9999, "loss": 3}': "were asked for",
        '{"params": 4184, "loss": "NaN"}': "loss: ",
        '{"params": 4184, "loss": -1}': "greater than 0",
        '{"model": "nowhere"}': "has no config.json",
        "{": "not a JSON object",
    }.items():
        result.write_text(text)
        with pytest.raises(InputError, match=message):
            sweeps.record(tmp_path / "store", step, result)
    with pytest.raises(InputError, match="no such file; give the result"):
        sweeps.record(tmp_path / "store", step, tmp_path / "absent.json")
    with pytest.raises(InputError, match="names no steps"):
        sweeps.record(tmp_path / "store", "ffffff", result)
    assert Store(tmp_path / "store").result(step) is None


def test_the_schemas_that_ship_are_those_of_the_code() -> None:
    for module, made in (
        (job_module, job_module.job_schema()),
        (result_module, result_module.result_schema()),
    ):
        assert json.loads(module.SCHEMA_FILE.read_text()) == made
        Draft202012Validator.check_schema(made)


def test_commands_are_shown_before_they_run(spec_file: Path) -> None:
    lines: list[Any] = sweeps.load(spec_file).spec.command_lines
    assert lines == ["command    teachers[0], students[0]: train '{tokens}' --out '{out}'  (version 1)"]
