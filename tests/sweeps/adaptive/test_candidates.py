"""Runs of a sweep as candidates: prices of teachers and shared prefixes, and specs of single runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import sweeps
from distlaw.cli import app
from scaling import InputError, Question
from sweeps.adaptive.candidates import candidates_of_dag, closure, teachers_of_dag
from sweeps.adaptive.next_runs import propose
from sweeps.adaptive.selection import spec_of_runs
from sweeps.api import LoadedSweep
from sweeps.dag.kind import StepKind

QUESTION = Question(student_params=56e3, budget=3e12)


@pytest.fixture(scope="module")
def quickstart() -> LoadedSweep:
    return sweeps.load("quickstart", read_text=False)


def test_all_runs_together_cost_what_the_sweep_does(quickstart: LoadedSweep) -> None:
    dag = quickstart.dag
    candidates = candidates_of_dag(dag, {})
    assert len(candidates) == 43
    paid, total = np.zeros(len(dag.steps), dtype=bool), 0.0
    for run in range(len(candidates)):
        total += float(candidates.cost(paid)[run])
        paid[candidates.steps_of(run)] = True
    assert total == pytest.approx(dag.flops)
    assert candidates.done(paid).all()


def test_a_shorter_run_of_a_shared_prefix_costs_its_decay_alone(quickstart: LoadedSweep) -> None:
    dag = quickstart.dag
    candidates = candidates_of_dag(dag, {})
    index = {
        (step.shape.params, step.tokens): candidates.ids.index(step.id)
        for step in dag.steps
        if step.kind is StepKind.PRETRAIN
    }
    short, long = (index[min(index)[0], tokens] for tokens in (262144, 1048576))
    paid = np.zeros(len(dag.steps), dtype=bool)
    alone = candidates.cost(paid)[short]
    paid[candidates.steps_of(long)] = True
    assert candidates.cost(paid)[short] == pytest.approx(0.2 * alone, rel=0.02)


def test_a_measured_teacher_has_its_loss(quickstart: LoadedSweep) -> None:
    teacher = next(step.teacher for step in quickstart.dag.steps if step.teacher)
    candidates = candidates_of_dag(quickstart.dag, {teacher.id: 3.0})
    known = candidates.points.L_T[np.isfinite(candidates.points.L_T)]
    assert set(known) == {3.0}
    assert next(iter(teachers_of_dag(quickstart.dag, {teacher.id: 3.0}))).loss == 3.0


def test_the_spec_of_some_runs_stands_for_these_and_what_they_need(quickstart: LoadedSweep) -> None:
    found = propose(quickstart.dag, None, [QUESTION], slots=6, regret=-1.0)
    students = [step.id for step in quickstart.dag.steps if step.teacher and step.kind.is_run][:3]
    chosen = {*(run.id for run in found.runs), *students}
    spec = spec_of_runs(quickstart.resolved, quickstart.dag, chosen)
    made = sweeps.load(yaml.safe_load(yaml.safe_dump(spec)), read_text=False)
    runs = {step.id for step in made.dag.steps if step.kind.is_run}
    needed = closure(quickstart.dag, chosen)
    assert runs == {step.id for step in needed.steps if step.kind.is_run}


def test_methods_and_seeds_survive_in_the_spec_of_some_runs() -> None:
    methods = sweeps.load("methods", read_text=False)
    chosen = [step.id for step in methods.dag.steps if step.kind.is_run][::150]
    spec = spec_of_runs(methods.resolved, methods.dag, chosen)
    made = sweeps.load(spec, read_text=False)
    assert set(chosen) <= {step.id for step in made.dag.steps}


def test_the_command_proposes_writes_a_spec_and_explains(tmp_path: Path) -> None:
    out = tmp_path / "next.yaml"
    run = CliRunner().invoke(
        app,
        ["sweep", "next", "--spec", "quickstart", "--student", "56k", "--budget", "3e12", "--why", "--slots", "4",
         "--regret", "0.0001", "--out", str(out)],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert "expected regret of deciding now" in run.output
    assert "lowers the variance in question by" in run.output
    made = sweeps.load(str(out), read_text=False)
    assert 4 <= sum(step.kind.is_run for step in made.dag.steps) <= 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--spec", "quickstart"], "say what is to be decided"),
        (["nowhere.csv", "--budget", "1e13"], "neither a sweep's store nor a table of runs"),
        (["--budget", "nan"], "budget"),
        (["--budget", "1e13", "--regret", "nan"], "--regret"),
        (["--budget", "1e13", "--spec", "quickstart", "--spend", "1e6"], "buy none of the 43 candidates"),
        (["--budget", "1e13", "--spend", "1e6"], "buy no run of"),
        (["--budget", "1e13", "--set", "name=x"], "--set changes a spec"),
        (["--budget", "1e13", "--prior", "gadre2024-c4", "--slots", "0"], "--slots"),
        (
            ["--budget", "1e13", "--spec", "quickstart", "--vocab", "300"],
            "are those of quickstart: leave them",
        ),
        (
            ["--budget", "1e13", "--spec", "quickstart", "--prior", "busbridge2025-figure1-runs"],
            "its losses are of a vocabulary of 32768, and the sweep's of 512",
        ),
    ],
)
def test_bad_input_is_refused_with_a_sentence(arguments: list[str], message: str) -> None:
    run = CliRunner().invoke(app, ["sweep", "next", *arguments])
    text = (
        run.output if run.exception is None or isinstance(run.exception, SystemExit) else str(run.exception)
    )
    assert message in text
    assert run.exit_code != 0


def test_rows_that_cannot_be_used_and_assumed_numbers_are_said(tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    file.write_text("params,tokens,loss\n10000,200000,4.0\n20000,400000,nan\n40000,,3.2\n")
    run = CliRunner().invoke(app, ["sweep", "next", str(file), "--student", "160k", "--budget", "3e13"])
    assert run.exit_code == 0, run.output
    assert "note: 2 of 3 rows cannot be used: 1 x no loss, 1 x no tokens" in run.output
    assert "note: Assumed for the FLOPs, as nothing says otherwise: context 4096, vocabulary" in run.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("budgets: 1e13", "unknown field 'budgets'"),
        ("[1, 2]", "expected fields such as student_params and budget"),
        ("student_params: []\nbudget: 1e13", "student_params is an empty list"),
        ("student_params: 1e5\nbudget: .nan", "budget"),
        ("student_params: 1e5\nbudget: 1e13\nscenarios: [free]", "unknown scenario 'free'"),
    ],
)
def test_a_question_that_cannot_be_read_is_refused(tmp_path: Path, content: str, message: str) -> None:
    from distlaw.commands.sweep.question import read_questions

    file = tmp_path / "question.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        read_questions(file, "", "", None)


def test_a_question_file_holds_several_students_and_budgets(tmp_path: Path) -> None:
    from distlaw.commands.sweep.question import read_questions

    file = tmp_path / "question.yaml"
    file.write_text(
        "student_params: [100k, 1M]\nbudget: [1e13, 1e14]\nteachers: [{name: big, params: 4M, tokens: 40M}]"
    )
    found = read_questions(file, "", "", ["teacher_inference"])
    assert [(q.student_params, q.budget) for q in found] == [
        (1e5, 1e13),
        (1e5, 1e14),
        (1e6, 1e13),
        (1e6, 1e14),
    ]
    assert found[0].teachers[0].params == 4e6


def test_a_projected_run_is_a_cheaper_and_less_certain_candidate() -> None:
    both = sweeps.load("quickstart", ["supervised[0].measure=[decayed,projected]"], read_text=False)
    candidates = candidates_of_dag(both.dag, {})
    projected = candidates.extra_sd > 0
    assert candidates.measured_otherwise.tolist() == projected.tolist()
    assert projected.sum() == 8
    nothing = np.zeros(len(both.dag.steps), dtype=bool)
    early_done = nothing.copy()
    for run in np.flatnonzero(projected):
        twin = int(
            np.flatnonzero((candidates.configuration == candidates.configuration[run]) & ~projected)[0]
        )
        step = next(each for each in both.dag.steps if each.id == candidates.ids[run])
        assert step.early is not None
        early_done[:] = nothing
        early_done[candidates.steps_of(candidates.ids.index(step.early.id))] = True
        # the decay of the run itself is what it saves, once the early one is there
        saved = candidates.cost(early_done)[twin] - candidates.cost(early_done)[run]
        assert saved == pytest.approx(0.2 * step.flops, rel=0.02)
    spec = spec_of_runs(both.resolved, both.dag, [candidates.ids[run] for run in np.flatnonzero(projected)])
    assert all(grid["measure"] == "projected" and len(grid["tokens"]) == 2 for grid in spec["supervised"])
    found = propose(both.dag, None, [QUESTION], regret=-1.0, slots=30)
    assert any(run.label.endswith(", projected") and run.projected_sd for run in found.runs)
