"""``distlaw design``: which sweep to declare for a question, and what it is expected to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

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
from distlaw.options import Aspect, Vocab, Window
from scaling.errors import InputError


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
    as_json: Json = False,
) -> None:
    """Design a sweep before its first run: expected error and P(right decision) over money.

    Example: distlaw design --student 300M --budget 1e21 --spend 1e19 --out design.png
    """
    from fits.design.ladder import ladder_for
    from fits.design.question_options import decisions_of
    from fits.design.sweep_design import design_sweep
    from scaling.costs.flops import Architecture
    from scaling.costs.flops_assumptions import with_numbers

    if not spend:
        raise InputError("--spend says what the sweep may cost: --spend 1e19, or --spend '10 h100-hours'")
    money = read_spend(spend)
    questions = read_questions(question, student, budget, scenario)
    numbers: dict[str, float | None] = {"context": context, "vocab": vocab, "aspect_ratio": aspect_ratio}
    if spec:
        import sweeps
        from sweeps.adaptive.candidates import candidates_of_dag, teachers_of_dag
        from sweeps.adaptive.next_runs import architecture_of

        if any(numbers.values()):
            raise InputError("--context, --vocab and --aspect-ratio are those of --spec: leave them out")
        dag = sweeps.load(spec).dag
        decisions = decisions_of(questions, architecture_of(dag), teachers_of_dag(dag, {}))
        candidates = candidates_of_dag(dag, {})
    else:
        architecture = with_numbers(Architecture(), "given", **numbers)
        decisions = decisions_of(questions, architecture)
        candidates = ladder_for(decisions, architecture, money)
    found = design_sweep(candidates, decisions, money, sibling=read_sibling(prior))
    if out is not None:
        from scaling.figures.render import draw

        draw(found.chart()).savefig(out)
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))
    if out is not None:
        typer.echo(f"figure: {out}", err=True)
