"""``distlaw design``: which sweep to declare for a question, and what it is expected to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distlaw.commands.sweep.options import Json
from distlaw.commands.sweep.question import (
    Budgets,
    Prior,
    QuestionFile,
    ScenarioNames,
    Student,
    read_questions,
    read_sibling,
    read_spend,
)
from distlaw.options import COUNTING_OPTIONS, Aspect, Vocab, Window
from scaling.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fits.design.candidates import Candidates
    from fits.design.regret import DecisionOptions
    from fits.estimation.laws.sibling import Sibling
    from scaling.planner.question import Question


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("design")(design)


def design(
    question: QuestionFile = None,
    student: Student = "",
    budget: Budgets = "",
    scenario: ScenarioNames = None,
    spend: Annotated[
        str, typer.Option(metavar="FLOPS", help="FLOPs of the whole sweep: 1e20, 10 h100-hours.")
    ] = "",
    spec: Annotated[
        str,
        typer.Option(
            help="Spec whose runs are the candidates. Default: a ladder below the student in question, on 5, "
            "20 and 80 tokens per parameter."
        ),
    ] = "",
    prior: Prior = "",
    context: Window = None,
    vocab: Vocab = None,
    aspect_ratio: Aspect = None,
    out: Annotated[Path | None, typer.Option(help="Write the figure (.png, .svg, .pdf).")] = None,
    dark: Annotated[bool, typer.Option("--dark", help="Draw it for a dark page.")] = False,
    as_json: Json = False,
) -> None:
    """Design a sweep before its first run: expected error and P(right decision) over money.

    Example: distlaw design --student 300M --budget 1e21 --spend 1e19 --out design.png
    """
    from fits.design.sweep_design import design_for, design_sweep
    from scaling.costs.flops_assumptions import assumed_architecture

    if not spend:
        raise InputError("--spend says what the sweep may cost: --spend 1e19, or --spend '10 h100-hours'")
    money, sibling = read_spend(spend), read_sibling(prior)
    questions = read_questions(question, student, budget, scenario)
    numbers: dict[str, float | None] = {"context": context, "vocab": vocab, "aspect_ratio": aspect_ratio}
    if spec:
        if any(numbers.values()):
            raise InputError(f"{COUNTING_OPTIONS} are those of --spec: leave them out")
        found = design_sweep(*_of_spec(spec, questions, sibling), money, sibling=sibling)
    else:
        found = design_for(questions, money, architecture=assumed_architecture(**numbers), sibling=sibling)
    if out is not None:
        found.plot(dark).write(out)
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))
    if out is not None:
        typer.echo(f"figure: {out}", err=True)


def _of_spec(
    spec: str, questions: Sequence[Question], sibling: Sibling | None
) -> tuple[Candidates, DecisionOptions]:
    """Return the runs of a spec as candidates, and the decisions between its teachers."""
    import sweeps
    from fits.design.question_options import decisions_of
    from sweeps.adaptive.candidates import candidates_of_dag, teachers_of_dag
    from sweeps.adaptive.next_runs import architecture_of, refuse_other_vocabulary

    dag = sweeps.load(spec).dag
    refuse_other_vocabulary(sibling, dag)
    decisions = decisions_of(questions, architecture_of(dag), teachers_of_dag(dag, {}))
    return candidates_of_dag(dag, {}), decisions
