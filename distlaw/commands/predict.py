"""``distlaw predict``: losses of one student under the laws."""

from __future__ import annotations

import sys
from shutil import get_terminal_size
from typing import Annotated

import typer

from distlaw.options import Calibration, Json, parse_optional, write_json
from scaling.calibration.calibration import DEFAULT_CALIBRATION
from scaling.calibration.calibration import Calibration as Fitted
from scaling.planner.prediction import predict
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
    teacher: Annotated[str, typer.Option(metavar="PARAMS", help="Its size, to predict its loss.")] = "",
    teacher_tokens: Annotated[
        str, typer.Option(metavar="TOKENS", help="Its tokens, to predict its loss.")
    ] = "",
    calibration: Calibration = DEFAULT_CALIBRATION,
    json: Json = False,
) -> None:

    params = parse_quantity(student, "--student", "params")
    size = parse_optional(teacher, "--teacher", "params")
    answer = predict(
        Fitted.load(calibration),
        student_params=params,
        student_tokens=parse_tokens(tokens, params, "--tokens"),
        teacher_loss=parse_optional(teacher_loss, "--teacher-loss"),
        teacher_params=size,
        teacher_tokens=parse_tokens(teacher_tokens, size, "--teacher-tokens") if teacher_tokens else None,
    )
    if json:
        write_json(answer.to_dict())
        return
    lines = [answer.asked, "", *text_table(*answer.table())]
    lines += wrapped((f"! {warning}" for warning in answer.warnings), get_terminal_size().columns)
    sys.stdout.write("\n".join(lines) + "\n")
