"""The ``distlaw`` command: parse, call, render. The module of a command is loaded when that is asked for."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from scaling.errors import InputError

COMMANDS = {
    "plan": "planner.plan",
    "predict": "planner.predict",
    "compare": "planner.compare",
    "calibrations": "planner.calibrations",
    "teachers": "planner.teachers",
    "design": "design",
    "collect": "collect",
    "fit": "fit",
    "check": "fit",
    "compare-laws": "fit",
    "compare-methods": "compare_methods",
    "plot": "plot",
    "train": "train",
    "serve": "serve",
    "quickstart": "quickstart",
    "sweep": "sweep",
    "teacher": "teacher",
}
"""Commands, in the order of the help, and the module of :mod:`distlaw.commands` that registers each."""


class CommandGroup(TyperGroup):
    """Commands whose modules are loaded when they are asked for; help and mistyped names load all."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the names of the commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Return a command; None if there is none, with all loaded for the hint of what was meant."""
        wanted = [cmd_name] if cmd_name in COMMANDS else COMMANDS
        for name in wanted:
            if name not in self.commands:
                self.commands.update(_commands_of(COMMANDS[name]))
        return self.commands.get(cmd_name)


def _commands_of(module: str) -> dict[str, Any]:
    """Return the commands that a module registers, by name."""
    part = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
    import_module(f"distlaw.commands.{module}").register(part)
    return dict(typer.main.get_group(part).commands)


app = typer.Typer(
    name="distlaw",
    cls=CommandGroup,
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


def main() -> None:
    """Run the command line; exit 0 when all is well, 2 for bad input, 1 for a failure."""
    try:
        app()
    except InputError as error:
        from distlaw.options import with_options

        _fail(with_options(str(error)), 2)
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
