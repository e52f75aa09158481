"""``distlaw compare-methods``: what each method of a table is worth against a matched control."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distlaw.commands.fit import Json
from distlaw.number_options import count_from
from distlaw.tables import BytesPerToken, Decimal, LossUnit, Map, Table, Where, load_table


class On(StrEnum):
    """Input that a multiplier applies to."""

    TOKENS = "tokens"
    PARAMS = "params"
    COMPUTE = "compute"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("compare-methods")(compare_methods_command)


def compare_methods_command(
    table: Table,
    mapping: Map = None,
    loss_unit: LossUnit = "",
    bytes_per_token: BytesPerToken = None,
    decimal: Decimal = ".",
    where: Where = None,
    control: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="Method, or supervised, that the others are compared with. By default forward-kl, where "
            "the table has it, else supervised.",
        ),
    ] = "",
    on: Annotated[On, typer.Option(help="Input that multipliers apply to.")] = On.TOKENS,
    as_json: Json = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Draw the multipliers (.png, .svg or .pdf).")
    ] = None,
    seed: Annotated[
        int, typer.Option(parser=count_from(), metavar="<int>", help="Random seed of the draws.")
    ] = 0,
) -> None:
    """Estimate by how many times the tokens, parameters or compute of a control each method is worth.

    Runs are compared with the control's run of the same size, tokens, teacher and (where there is one) seed.
    Compute is the column `flops`: training, and what the teacher read and wrote and the student wrote, but
    not the teacher's own training.

    Examples:

        distlaw compare-methods store --control supervised

        distlaw compare-methods runs.csv --on compute --plot methods.png
    """
    from fits import compare_methods

    runs = load_table(table, mapping, loss_unit, bytes_per_token, decimal, where)
    found = compare_methods(runs, control or None, on.value, seed=seed)
    if plot is not None:
        found.plot().write(plot, "--plot")
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json else found)
