"""``distlaw compare``: one question under several calibrations, laws or scenarios, side by side."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from distlaw.options import Csv, Json, ScenarioNames, write_csv, write_json
from scaling.calibration import Calibration, published
from scaling.planner import plan
from scaling.question import Question
from scaling.render import text_table
from scaling.scenarios import DESCRIPTIONS, SCENARIOS
from scaling.scenarios import scenario as named
from scaling.units import parse_quantity

HELP = """One question put to several calibrations and all of their laws: where do they disagree?

Examples:

  distlaw compare --student 1B --budget 1e22

  distlaw compare --student 1B --budget 1e22 -c mine.json -c hoffmann2022
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("compare", help=HELP)(compare_command)


def compare_command(
    student: Annotated[str, typer.Option(metavar="PARAMS", help="Non-embedding parameters, e.g. 300M.")],
    budget: Annotated[str, typer.Option(metavar="FLOPS", help="Compute for all that is charged, e.g. 1e21.")],
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            "--calibration", "-c", metavar="NAME|FILE", help="Repeat; all published ones if not given."
        ),
    ] = None,
    scenario: ScenarioNames = None,
    json: Json = False,
    csv: Csv = False,
) -> None:

    rows = []
    for name in calibration or published():
        fitted = Calibration.load(name)
        for law in fitted.distillation or [None]:
            question = Question(
                student_params=parse_quantity(student, "--student"),
                budget=parse_quantity(budget, "--budget"),
                scenarios=tuple(named(each) for each in scenario or SCENARIOS),
                law=law,
            )
            answer = plan(question, fitted)
            rows += [{"calibration": fitted.name, "law": law or "", **row} for row in answer.rows()]
    if json:
        write_json({"rows": rows})
    elif csv:
        write_csv(rows)
    else:
        header = ["way", "calibration", "law", "loss (nats/token)", "gain", "P(distil)", "outside"]
        order = ["direct", *dict.fromkeys(row["way"] for row in rows if row["way"] != "direct")]
        rows.sort(key=lambda row: order.index(row["way"]))
        cells = [
            [
                DESCRIPTIONS.get(row["way"], "direct training"),
                row["calibration"],
                row["law"],
                f"{row['loss_nats']:.3f}",
                f"{row['gain_nats']:+.3f}",
                "" if row.get("probability_distil") is None else f"{row['probability_distil']:.2f}",
                "" if row["outside_region"] is None else f"{row['outside_region']:.2g}x",
            ]
            for row in rows
        ]
        sys.stdout.write("\n".join(text_table(header, cells)) + "\n")
