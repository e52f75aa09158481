"""``distlaw calibrations``: the sets that ship with the package, and what is in one."""

from __future__ import annotations

import sys
from shutil import get_terminal_size
from typing import Annotated

import typer

from distlaw.options import for_terminal
from scaling.calibration.calibration import Calibration, published
from scaling.reports.plan_text import calibration_text, text_table, wrapped

HELP = """List the published calibrations, or show one: laws, uncertainty, fitted region, provenance.

Examples:

  distlaw calibrations

  distlaw calibrations busbridge2025-figure1-runs

  distlaw calibrations calibration.json --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("calibrations", help=HELP)(calibrations_command)


def calibrations_command(
    name: Annotated[str, typer.Argument(metavar="[NAME|FILE]", help="The one to show.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the calibration's file itself.")] = False,
) -> None:

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
