"""Designs before the first run: beside grids, over money, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from distlaw.cli import app
from fits.design.belief import believe
from fits.design.ladder import ladder_for
from fits.design.points import Points
from fits.design.question_options import decisions_of, named_vocabulary
from fits.design.regret import expected_regret, regret_once_measured
from fits.design.sweep_design import SweepDesign, design_for, design_sweep
from scaling import Architecture, Question
from scaling.costs.flops_assumptions import assumed_architecture
from scaling.errors import InputError
from scaling.planner.teacher_catalogue import KnownTeacher
from scaling.units import format_power

QUESTION = Question(student_params=3e8, budget=1e21)
SPEND = 3e18


@pytest.fixture(scope="module")
def design() -> SweepDesign:
    decisions = decisions_of([QUESTION], Architecture())
    return design_sweep(ladder_for(decisions, Architecture(), SPEND), decisions, SPEND, draws=200)


def test_a_design_for_the_question_errs_less_than_a_grid_of_equal_cost(design: SweepDesign) -> None:
    grid = design.factorial[-1]
    within = [point for point in design.curve if point.flops <= grid.flops]
    assert within[-1].sd < 0.8 * grid.sd


def test_error_falls_with_money_and_the_spend_is_kept(design: SweepDesign) -> None:
    assert all(after.sd < before.sd for before, after in pairwise(design.curve))
    assert all(point.flops <= SPEND for point in (*design.curve, *design.factorial))
    assert len(design.runs) == design.curve[-1].runs == len(set(design.ids))


def test_measuring_nothing_leaves_the_regret_and_measuring_all_leaves_none() -> None:
    decisions = decisions_of([QUESTION], Architecture())
    belief = believe(None, Points.joined([decisions.options]))
    now = expected_regret(belief, decisions).mean
    nothing = regret_once_measured(belief, decisions, belief.covariance).mean
    assert nothing == pytest.approx(now, rel=1e-6)
    assert regret_once_measured(belief, decisions, 1e-12 * np.eye(len(belief.theta))).mean < 1e-4


def test_equal_questions_count_once() -> None:
    once, twice = decisions_of([QUESTION], Architecture()), decisions_of([QUESTION, QUESTION], Architecture())
    assert (twice.names, twice.notes) == (once.names, once.notes)


def test_a_design_says_that_it_ends_before_the_money(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fits.design.sweep_design.MOST_RUNS", 3)
    decisions = decisions_of([QUESTION], Architecture())
    design = design_sweep(ladder_for(decisions, Architecture(), SPEND), decisions, SPEND, draws=20)
    spent = format_power(design.curve[-1].flops)
    told = f"the design ends with its {len(design.runs)}th run, for {spent} FLOPs: more are not listed"
    assert told in design.notes


def test_a_vocabulary_is_that_of_the_runs_the_question_or_its_teachers() -> None:
    teachers = [
        KnownTeacher(name=name, params=1e9, tokens=1e11, vocab=vocab)
        for name, vocab in (("a", 512), ("b", 300))
    ]
    named = Question(student_params=3e8, budget=1e21, teachers=(teachers[0],))
    assert named_vocabulary([named], assumed_architecture()).vocab == 512
    assert named_vocabulary([named], assumed_architecture(vocab=300)).vocab == 300
    found = decisions_of([replace(named, teachers=tuple(teachers))], assumed_architecture(vocab=512))
    assert found.notes[0].startswith("! left out for another vocabulary than the student's 512: b (300)")
    with pytest.raises(InputError, match="no teacher can be used: all left out for another vocabulary"):
        decisions_of([named], assumed_architecture(vocab=300))
    with pytest.raises(InputError, match="vocab is 512, that of the runs 300"):
        decisions_of([replace(named, teachers=(), vocab=512)], assumed_architecture(vocab=300))


def test_assumed_numbers_are_said_and_given_ones_not() -> None:
    told = [
        design_for([QUESTION], 1e16, architecture=assumed_architecture(vocab=vocab)) for vocab in (None, 512)
    ]
    assert "context 4096, vocabulary 32768, aspect ratio 128" in told[0].notes[0]
    assert "context 4096, aspect ratio 128" in told[1].notes[0]


def test_the_command_draws_and_tells(tmp_path: Path) -> None:
    arguments = [
        "design",
        "--student",
        "300M",
        "--budget",
        "1e21",
        "--spend",
        "1e17",
        "--scenario",
        "best_case",
    ]
    run = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "d.svg")])
    assert run.exit_code == 0, run.output
    assert "the largest grid within the spend" in run.output
    assert (tmp_path / "d.svg").read_text().startswith("<?xml")
    plain = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert plain["curve"][0]["runs"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--student", "300M", "--budget", "1e21"], "--spend says what the sweep may cost"),
        (["--student", "300M", "--budget", "1e21", "--spend", "1e9"], "buy no run of"),
        (["--spend", "1e9"], "say what is to be decided"),
    ],
)
def test_bad_input_of_the_command(arguments: list[str], message: str) -> None:
    run = CliRunner().invoke(app, ["design", *arguments])
    assert message in f"{run.output}{run.exception}"
    assert run.exit_code != 0
