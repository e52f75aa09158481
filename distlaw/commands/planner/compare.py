"""``distlaw compare``: one question under several calibrations, laws or scenarios, side by side."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from shutil import get_terminal_size
from typing import Annotated, Any

import typer

from distlaw.options import Csv, Gpu, Json, ScenarioNames, refuse, write_csv, write_json
from scaling.calibration.calibration import Calibration, published
from scaling.calibration.region import TOO_FAR
from scaling.costs.budget import parse_budget
from scaling.costs.hardware import hardware
from scaling.costs.scenarios import SCENARIOS, scenario_title
from scaling.costs.scenarios import scenario as named
from scaling.planner.planner import plan
from scaling.planner.question import Question
from scaling.reports.plan_text import folded_table, signed, wrapped
from scaling.units import format_times, parse_quantity

HELP = """One question put to several calibrations and all of their laws: where do they disagree?

Examples:

  distlaw compare --student 1B --budget 1e22

  distlaw compare --student 1B --budget 1e22 -c mine.json -c hoffmann2022
"""

NOTE = (
    "Losses are comparable within a calibration only: another tokenizer or corpus has other losses. "
    "Gains and verdicts compare a student with itself."
)
UNITS = "loss and gain in nats/token; P(distilling is better); out: times outside the fitted runs"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("compare", help=HELP)(compare_command)


def compare_command(
    student: Annotated[str, typer.Option(metavar="PARAMS", help="Non-embedding parameters, e.g. 300M.")],
    budget: Annotated[
        str,
        typer.Option(
            metavar="COMPUTE",
            help="For all that is charged: 1e21 FLOPs, '1000 h100-hours', '64 b200 for 10 days', '$5000'.",
        ),
    ],
    gpu: Gpu = "",
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            "--calibration", "-c", metavar="NAME|FILE", help="Repeat; if not given, all published ones near."
        ),
    ] = None,
    scenario: ScenarioNames = None,
    json: Json = False,
    csv: Csv = False,
) -> None:

    refuse({"--csv": csv and json}, "goes without --json")
    spending = parse_budget(budget, "--budget", hardware(gpu) if gpu else None)
    question = Question(
        student_params=parse_quantity(student, "--student", "params"),
        budget=spending.flops,
        scenarios=tuple(named(each) for each in scenario or SCENARIOS),
    )
    rows, warnings = compared(question, [Calibration.load(name) for name in calibration or ()])
    if json:
        numbers: dict[str, Any] = {"student_params": question.student_params, "budget": question.budget}
        numbers |= {"spending": spending.to_dict()} if spending.hardware else {}
        write_json({"headline": " ".join(findings(rows)), **numbers, "rows": rows, "warnings": warnings})
    elif csv:
        write_csv(rows)
    else:
        width = get_terminal_size().columns
        notes = [f"! {text}" for text in warnings]
        notes += [f"- budget: {spending.describe()}"] if spending.hardware else []
        lines = wrapped(findings(rows), width, "  ")
        lines += ["", f"{question.describe()}.", *way_tables(rows, width), ""]
        lines += wrapped([*notes, f"- {NOTE}", f"- {UNITS}"], width)
        sys.stdout.write("\n".join(lines) + "\n")


def compared(question: Question, sets: Sequence[Calibration] = ()) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per calibration, law and way; and what every calibration warns of.

    Without ``sets``, of the published ones, but for those whose runs are so far away that they say nothing.
    """
    rows: list[dict[str, Any]] = []
    warnings = []
    for fitted in sets or [Calibration.load(name) for name in published()]:
        own = _rows(question, fitted)
        far = own[0]["outside_region"] or 1.0  # of direct training, which comes first
        if not sets and far > TOO_FAR:
            warnings.append(
                f"{fitted.name}: left out, the question lies {format_times(far)} outside its runs"
            )
            continue
        rows += own
        warnings += [f"{fitted.name}: {text}" for text in fitted.provenance.warnings]
    return rows, warnings


def _rows(question: Question, fitted: Calibration) -> list[dict[str, Any]]:
    return [
        {"calibration": fitted.name, "law": law or "", **row}
        for law in fitted.distillation or [None]
        for row in plan(replace(question, law=law), fitted).rows()
    ]


def findings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Way by way, under how many laws of the calibrations which verdict holds."""
    verdicts: dict[str, Counter[str]] = {}
    for row in rows:
        if row["way"] != "direct":
            verdicts.setdefault(row["way"], Counter())[row["verdict"]] += 1
    if not verdicts:
        return ["Direct training only: none of the calibrations has a distillation law."]
    return [
        f"{scenario_title(way)}: "
        + "; ".join(f"{verdict} ({n} of {counts.total()})" for verdict, n in counts.most_common())
        + "."
        for way, counts in verdicts.items()
    ]


def way_tables(rows: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """Return a table for each way, of at most ``width`` columns as far as its names allow."""
    header = ["calibration", "law", "loss", "gain", "P", "out"]
    lines: list[str] = []
    for way, cells in groupby(comparison_table(rows)[1], key=itemgetter(0)):
        lines += ["", way, *folded_table(header, [row[1:] for row in cells], width)]
    return lines


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells, way by way."""
    header = ["way", "calibration", "law", "loss (nats/token)", "gain", "P(distil)", "outside"]
    order = ["direct", *dict.fromkeys(row["way"] for row in rows if row["way"] != "direct")]
    return header, [
        [
            "direct training" if row["way"] == "direct" else scenario_title(row["way"]),
            row["calibration"],
            row["law"],
            f"{row['loss_nats']:.3f}",
            "" if row["way"] == "direct" else signed(row["gain_nats"]),
            "" if row["probability_distil"] is None else f"{row['probability_distil']:.2f}",
            "" if row["outside_region"] is None else format_times(row["outside_region"]),
        ]
        for row in sorted(rows, key=lambda row: order.index(row["way"]))
    ]
