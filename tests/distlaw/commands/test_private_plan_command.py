"""``distlaw plan --private-teachers``: in words, as JSON and CSV, refusals, and what it loads."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from distlaw.commands.planner import plan
from scaling import InputError, plan_private

ASKED = ("plan", "--private-teachers", "1000", "--epsilon", "8")


def run(*arguments: str) -> str:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.callback()(lambda: None)
    plan.register(app)
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "110"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_words_json_and_csv_say_the_same() -> None:
    answer = plan_private(1000, 8, student_params="7k")
    said = run(*ASKED, "--student", "7k")
    assert answer.verdict in " ".join(said.split())
    assert "unit: one of 1,000 shards" in said
    content = json.loads(run(*ASKED, "--student", "7k", "--json"))
    assert content == json.loads(json.dumps(answer.to_dict()))
    rows = list(csv.DictReader(io.StringIO(run(*ASKED, "--student", "7k", "--csv"))))
    assert [row["way"] for row in rows] == [way.name for way in answer.ways]
    assert float(rows[0]["released"]) == answer.best.released.value


def test_a_smaller_delta_releases_less() -> None:
    least, usual = (
        json.loads(run(*ASKED, *delta, "--json"))["ways"][0]["released"]["value"]
        for delta in (("--delta", "1e-9"), ())
    )
    assert least < usual


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--private-teachers 1000", "private text needs a number of teachers and a budget: --private"),
        ("--epsilon 4", "private text needs a number of teachers and a budget"),
        ("--delta 1e-6 --budget 1e20", "private text needs a number of teachers and a budget"),
        (
            "--private-teachers 1000 --epsilon 4 --budget 1e20",
            "--budget: does not go with --private-teachers",
        ),
        ("--private-teachers 1000 --epsilon 4 --teacher 8B", "--teacher: does not go with"),
        ("--private-teachers 1000 --epsilon inf", "epsilon: an infinite budget promises nothing"),
        ("--private-teachers 1000 --epsilon 0", "epsilon: 0 allows no release"),
        ("--private-teachers 1 --epsilon 4", "teachers: 1 shard makes no ensemble"),
        ("--private-teachers 1000 --epsilon 4 --delta 0.1", "delta: 0.1 is above 1/n = 0.001"),
        ("--private-teachers 1000 --epsilon 4 --csv --json", "--csv: goes without --json"),
        ("--private-teachers 1000 --epsilon 4 -c nope", "nope: no law of private text"),
    ],
)
def test_what_does_not_go_together_gets_its_sentence(arguments: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        run("plan", *arguments.split())


def test_it_loads_numpy_and_little_else() -> None:
    script = (
        "import sys; from distlaw.commands.planner.plan_private import PrivateAsked, print_private_plan\n"
        "print_private_plan(PrivateAsked('1000', '8', '', '', 'busbridge2025-figure1-runs'), {}, "
        "as_json=False, as_csv=False)\n"
        "heavy = {'torch', 'ray', 'transformers', 'pandas', 'matplotlib', 'scipy.optimize', 'pydantic', 'sweeps'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
