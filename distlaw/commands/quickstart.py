"""``distlaw quickstart``: the whole way in one command, printing the commands it stands for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scaling.planner.question import Question

STUDENT = "22k"
BUDGET = "3e11"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("quickstart")(quickstart)


def quickstart(
    out: Annotated[Path, typer.Option(help="Directory for everything it makes.")] = Path("quickstart"),
    spec: Annotated[str, typer.Option(help="Sweep to run: a YAML file or a preset.")] = "quickstart",
    student: Annotated[str, typer.Option(help="Student to plan for, non-embedding parameters.")] = STUDENT,
    budget: Annotated[str, typer.Option(help="Budget to plan with, FLOPs.")] = BUDGET,
) -> None:
    """Train real models on real text here, fit a law to them, plan with it, and plot it (minutes).

    Example: distlaw quickstart --out quickstart
    """
    import sweeps
    from distlaw.commands.sweep.run import run_loaded

    question = _question(student, budget)
    started = time.monotonic()
    store, calibration = out / "runs", out / "calibration.json"

    _command(f"distlaw sweep run {spec} --store {store}")
    run_loaded(sweeps.load(spec), str(store))

    _command(f"distlaw fit {store} --out {calibration} --plots {out / 'figures'}")
    _fit(store, out, calibration)

    _command(f"distlaw plan --calibration {calibration} --student {student} --budget {budget}")
    _plan(calibration, question, out / "plan.json")

    minutes = (time.monotonic() - started) / 60
    typer.echo(
        f"\n{minutes:.1f} minutes. In {out}: runs.csv, calibration.json, report.txt, plan.json, figures/"
    )


def _fit(store: Path, out: Path, calibration: Path) -> None:
    from distlaw.commands.sweep.run import write_table
    from distlaw.tables import load_table
    from fits import fit

    runs = load_table(store)
    write_table(runs, out / "runs.csv")
    found = fit(runs, name="quickstart", source=f"sweep {store}")
    found.calibration.save(calibration)
    report = found.summary()
    (out / "report.txt").write_text(report + "\n")
    typer.echo(report)
    found.plot.save(out / "figures")


def _question(student: str, budget: str) -> Question:
    """Read the question of the plan, before anything is trained."""
    from scaling.planner.question import Question
    from scaling.units import parse_quantity

    return Question(
        student_params=parse_quantity(student, "--student", "params"),
        budget=parse_quantity(budget, "--budget", "FLOPs"),
    )


def _plan(calibration: Path, question: Question, out: Path) -> None:
    import json

    from distlaw.commands.planner.plan import print_plan
    from scaling.calibration.calibration import Calibration
    from scaling.planner.planner import plan

    answer = plan(question, Calibration.load(calibration))
    print_plan(answer)
    out.write_text(json.dumps(answer.to_dict(), indent=1) + "\n")


def _command(text: str) -> None:
    typer.echo(f"\n$ {text}\n")
