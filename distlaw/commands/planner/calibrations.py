"""``distlaw calibrations``: the sets that ship with the package, and what is in one."""

from __future__ import annotations

import sys
from shutil import get_terminal_size
from typing import Annotated

import typer

from distlaw.options import for_terminal, write_json
from scaling.calibration.calibration import Calibration, published
from scaling.calibration.ranking import rank_calibrations, ranking_data, ranking_lines, ranking_table
from scaling.errors import InputError
from scaling.reports.plan_text import calibration_text, text_table, wrapped
from scaling.units import check_params, parse_quantity, parse_tokens

HELP = """List the published calibrations, or show one: laws, uncertainty, fitted region, provenance.

Examples:

  distlaw calibrations

  distlaw calibrations busbridge2025-figure1-runs

  distlaw calibrations calibration.json --json

With a size and tokens they are ranked by how well they fit, with the reasons:

  distlaw calibrations --student 1B --tokens 20:1 --text refinedweb
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("calibrations", help=HELP)(calibrations_command)


def calibrations_command(
    name: Annotated[str, typer.Argument(metavar="[NAME|FILE]", help="The one to show.")] = "",
    json: Annotated[
        bool, typer.Option("--json", help="Print the calibration's file itself, or the ranking as JSON.")
    ] = False,
    student: Annotated[
        str, typer.Option(metavar="PARAMS", help="Rank them for a model of this size, with --tokens.")
    ] = "",
    tokens: Annotated[str, typer.Option(metavar="TOKENS", help="Its training tokens, or 20:1.")] = "",
    text: Annotated[str, typer.Option(help="Prefer those of this text, for example refinedweb.")] = "",
    tokenizer: Annotated[str, typer.Option(help="Prefer those of this tokenizer.")] = "",
) -> None:

    if student or tokens or text or tokenizer:
        _rank(name, json, student, tokens, text, tokenizer)
        return
    if name:
        found = Calibration.load(name)
        sys.stdout.write(found.to_json() if json else for_terminal(calibration_text(found)))
        return
    sets = [Calibration.load(each) for each in published()]
    rows = [
        [each.name, ", ".join(each.distillation) or "supervised only", str(each.draw_count)] for each in sets
    ]
    head, rule, *table = text_table(["name", "distillation laws", "draws"], rows)
    width = get_terminal_size().columns
    lines = [
        line
        for row, each in zip(table, sets, strict=True)
        for line in (row, *wrapped([f"  {each.provenance.source}"], width, "  "))
    ]
    sys.stdout.write("\n".join([head, rule, *lines]) + "\n")


def _rank(name: str, json: bool, student: str, tokens: str, text: str, tokenizer: str) -> None:
    """Print which calibration fits a question best, and why."""
    if name or not (student and tokens):
        raise InputError(
            "to rank calibrations give --student and --tokens, and no name: distlaw calibrations --student "
            "1B --tokens 20:1 --text refinedweb"
        )
    params = parse_quantity(student, "--student", "params")
    check_params(params, "--student")
    count = parse_tokens(tokens, params, "--tokens")
    matches = rank_calibrations(params, count, text, tokenizer)
    if json:
        write_json(ranking_data(matches, params, count, text))
        return
    width = get_terminal_size().columns
    lines = wrapped(ranking_lines(matches, params, count, text), width, "  ")
    note = "error: standard deviation of one run, of losses on the calibration's own text and tokens"
    sys.stdout.write("\n".join([*lines, "", *text_table(*ranking_table(matches)), "", note]) + "\n")
