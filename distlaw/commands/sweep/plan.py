"""``distlaw sweep plan``: what a sweep would take, what it would show, and what speaks against it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distlaw.commands.sweep.options import Changes, Cores, Json, Spec, StorePath
from distlaw.number_options import count_from
from scaling.errors import InputError

OF_THE_TEXT = re.compile(r"\bcorpus(\.source|\.tokenizer)?: ")
"""Beginnings of errors about a text or tokenizer that cannot be read."""

if TYPE_CHECKING:
    from sweeps.estimate.plan import SweepPlan


def plan(
    spec: Spec,
    store: StorePath = None,
    cores: Cores = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            parser=count_from(1),
            metavar="<int>",
            help="GPUs of the kind that the spec's hardware names; 1 if not given.",
        ),
    ] = None,
    changes: Changes = None,
    no_text: Annotated[
        bool,
        typer.Option("--no-text", help="Do not read the text: estimate its tokens, before it is there."),
    ] = False,
    graph: Annotated[
        Path | None, typer.Option(help="Draw the steps and what they need: a .png, .svg, .pdf or .txt file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the steps, FLOPs, time, money and memory of a sweep, and what it will show; then stop.

    Example: distlaw sweep plan quickstart --set students[0].params=[10k,30k]
    """
    import sweeps

    try:
        loaded = sweeps.load(spec, changes or (), read_text=not no_text)
        if gpus and not loaded.spec.hardware.gpu:
            raise InputError(
                f"--gpus: {gpus}, but the spec names no GPU, and time would be told for cores of this "
                "machine; name one, such as --set hardware.name=h100, or leave out --gpus"
            )
        found = loaded.plan(store, devices=gpus if loaded.spec.hardware.gpu else cores)
    except InputError as error:
        if no_text or not OF_THE_TEXT.search(str(error)):
            raise
        raise InputError(f"{error}\n(--no-text plans without the text)") from None
    if graph:
        from sweeps.estimate.graph import write_graph

        write_graph(found.dag, found.done, graph)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        _show(found)
    found.check_caps()


def schema() -> None:
    """Print the JSON schema of specs, for editors that complete and check YAML.

    Example: distlaw sweep schema > sweep.schema.json
    """
    from sweeps.spec.spec import Sweep

    typer.echo(json.dumps(Sweep.model_json_schema(), indent=1))


def _show(found: SweepPlan) -> None:
    """Print a plan with its table drawn for a terminal."""
    from rich.console import Console
    from rich.table import Table

    from sweeps.estimate.plan_text import RIGHT, left_out_line, lines, steps_table, title

    header, rows = steps_table(found)
    table = Table(title=title(found))
    for name in header:
        table.add_column(name, justify="right" if name in RIGHT else "left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print("\n".join([*left_out_line(found), *lines(found)]), highlight=False, soft_wrap=True)
