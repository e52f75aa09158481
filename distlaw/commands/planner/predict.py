"""``distlaw predict``: losses of one student under the laws."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated

import typer

from distlaw.commands.planner.teachers import asked_teachers
from distlaw.options import Calibration, Json, parse_optional, write_json
from scaling.calibration.calibration import DEFAULT_CALIBRATION
from scaling.calibration.calibration import Calibration as Fitted
from scaling.planner.prediction import predict
from scaling.planner.teacher_catalogue import mixture_warnings
from scaling.reports.plan_text import text_table, wrapped
from scaling.units import parse_quantity, parse_tokens

HELP = """Losses at a point: what a student of this size reaches on these tokens, alone and with a teacher.

Examples:

  distlaw predict --student 1B --tokens 20B

  distlaw predict --student 300M --tokens 20:1 --teacher-loss 2.3
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("predict", help=HELP)(predict_command)


def predict_command(
    student: Annotated[str, typer.Option(metavar="PARAMS", help="Non-embedding parameters, e.g. 300M.")],
    tokens: Annotated[str, typer.Option(metavar="TOKENS", help="Tokens, e.g. 20B; or per parameter: 20:1.")],
    teacher_loss: Annotated[
        str, typer.Option(metavar="NATS", help="The teacher's measured loss, nats/token.")
    ] = "",
    teacher: Annotated[
        str,
        typer.Option(
            metavar="PARAMS|MODEL",
            help="Its size, or an open model's name, to predict its loss: 8B, Qwen3-8B.",
        ),
    ] = "",
    teacher_tokens: Annotated[
        str, typer.Option(metavar="TOKENS", help="Its tokens, where no open model says them.")
    ] = "",
    calibration: Calibration = DEFAULT_CALIBRATION,
    json: Json = False,
) -> None:

    params = parse_quantity(student, "--student", "params")
    known, notes = _teacher(teacher, teacher_tokens, teacher_loss)
    answer = predict(
        Fitted.load(calibration),
        student_params=params,
        student_tokens=parse_tokens(tokens, params, "--tokens"),
        **known,
    )
    answer = replace(answer, warnings=(*answer.warnings, *notes))
    if json:
        write_json(answer.to_dict())
        return
    lines = [answer.asked, "", *text_table(*answer.table())]
    lines += wrapped((f"! {warning}" for warning in answer.warnings), get_terminal_size().columns)
    sys.stdout.write("\n".join(lines) + "\n")


def _teacher(name: str, tokens: str, loss: str) -> tuple[dict[str, float | None], list[str]]:
    """Return what is known of the teacher, as arguments of :func:`predict`, and warnings about it."""
    if name.strip()[:1].isalpha() or (name and Path(name).is_dir()):
        (known,) = asked_teachers(None, [name], tokens, loss, "")
        found = {"teacher_params": known.params, "teacher_tokens": known.tokens, "teacher_loss": known.loss}
        return found, mixture_warnings([known])
    size = parse_optional(name, "--teacher", "params")
    return {
        "teacher_params": size,
        "teacher_tokens": parse_tokens(tokens, size, "--teacher-tokens") if tokens else None,
        "teacher_loss": parse_optional(loss, "--teacher-loss"),
    }, []
