"""The ``distlaw`` command: parse, call, render. Heavy imports live inside the commands that need them."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from distlaw.commands import compare_methods, fit, plan, plot, quickstart, serve, teacher, train
from distlaw.commands.sweep import monitor, run, submit, tune
from scaling.errors import InputError

app = typer.Typer(
    name="distlaw",
    help="Distil or train directly? Which teacher, how many tokens? Ask a distillation scaling law.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def print_version(wanted: bool) -> None:
    """Print the version and stop, if it is wanted."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"distlaw {version('distlaw')}")
        raise typer.Exit


@app.callback()
def shared(
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print the version.")
    ] = False,
) -> None:
    """Distil or train directly? Which teacher, how many tokens? Ask a distillation scaling law."""


plan.register(app)
fit.register(app)
compare_methods.register(app)
plot.register(app)
run.app.command("tune")(tune.tune)
run.app.command("submit")(submit.submit)
monitor.register(run.app)
app.add_typer(run.app, name="sweep")
train.register(app)
app.add_typer(teacher.app, name="teacher")
app.command()(serve.serve)
quickstart.register(app)


def main() -> None:
    """Run the command line; exit 0 when all is well, 2 for bad input, 1 for a failure."""
    try:
        app()
    except InputError as error:
        _fail(str(error), 2)
    except Exception as error:
        if os.environ.get("DISTLAW_DEBUG"):
            raise
        from sweeps.store.faults import explain_store_error

        if found := explain_store_error(error):
            _fail(*found)
        _fail(f"{type(error).__name__}: {error}\n(DISTLAW_DEBUG=1 shows the traceback)", 1)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(code)
