"""Arguments and options that commands of ``distlaw sweep`` share."""

from __future__ import annotations

from typing import Annotated

import typer

from distlaw.number_options import count_from

Spec = Annotated[str, typer.Argument(help="A YAML file, or a preset such as 'quickstart'.")]
StorePath = Annotated[
    str | None,
    typer.Option("--store", help="Where results go: a path or URL. Default: runs/NAME of the spec."),
]
Cores = Annotated[
    int | None,
    typer.Option(
        parser=count_from(1), metavar="<int>", help="Processes, one thread each. Default: all cores."
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Change the spec: students[0].params=[10k,30k]. Repeat."
    ),
]
Place = Annotated[str, typer.Argument(help="A sweep's store: a path or URL.")]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
