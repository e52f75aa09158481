"""``distlaw plan``: whether to distil, with what, at what cost. Loads neither torch nor pandas."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scaling.plans import Plan

DEFAULT_CALIBRATION = "busbridge2025-figure1-runs"

CalibrationOption = Annotated[
    str,
    typer.Option(
        "--calibration", "-c", metavar="NAME|FILE", help="A published set (see calibrations) or a JSON file."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("plan")(plan_command)


def plan_command(
    student: Annotated[
        str, typer.Option(metavar="PARAMS", help="Student size: non-embedding parameters, e.g. 300M.")
    ],
    budget: Annotated[str, typer.Option(metavar="FLOPS", help="Compute for all that is charged, e.g. 1e21.")],
    calibration: CalibrationOption = DEFAULT_CALIBRATION,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, numbers in full.")] = False,
) -> None:
    """Distil or train directly? The best teacher, tokens and split of the compute, with the expected loss.

    Examples:

      distlaw plan --student 300M --budget 1e21

      distlaw plan --student 100k --budget 1e14 --calibration calibration.json --json
    """
    from scaling.calibration import Calibration
    from scaling.planner import plan
    from scaling.question import Question
    from scaling.units import parse_quantity

    question = Question(
        student_params=parse_quantity(student, "--student"), budget=parse_quantity(budget, "--budget")
    )
    answer = plan(question, Calibration.load(calibration))
    if json:
        print_json(answer)
    else:
        print_plan(answer)


def print_json(answer: Plan) -> None:
    """The plan as JSON on stdout."""
    import json

    sys.stdout.write(json.dumps(answer.to_dict(), indent=1) + "\n")


def print_plan(answer: Plan) -> None:
    """The verdict, one table, then what to beware of and what was assumed."""
    from scaling.render import plan_text

    sys.stdout.write(plan_text(answer))
