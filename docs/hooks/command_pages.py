"""Command line in the documentation: its reference, outputs of commands, and checks that they parse."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from functools import cache
from itertools import takewhile
from pathlib import Path
from tempfile import mkdtemp
from unittest.mock import patch

import typer
from typer.cli import get_docs_for_click
from typer.core import TyperGroup
from typer.testing import CliRunner

from distlaw.cli import app

ROOT = Path(__file__).parents[2]
SAMPLES = {
    "runs.csv": "notebooks/data/quickstart-runs.csv",
    "quickstart/runs.csv": "notebooks/data/quickstart-runs.csv",
    "figure1.csv": "fits/data/figure1.csv",
    "teachers.csv": "docs/samples/teachers.csv",
    "wandb.csv": "notebooks/data/wandb-export.csv",
    "hf-grid": "tests/fits/logs/samples/hf-grid",
    "hf-trainer": "tests/fits/logs/samples/hf-trainer",
}
"""Tables and logs in the directory where the pages' commands run."""
WIDTH = 104
FENCED = re.compile(r"^```(?:console|bash|sh|shell)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}.*(?:\n {4}.*)*", re.MULTILINE)
EXAMPLES = re.compile(r"(?:^ +distlaw .*\n\n?)+", re.MULTILINE)


def reference(_: str = "") -> str:
    """Return every command with its arguments and options, from the application itself."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="distlaw")
    text = get_docs_for_click(obj=command, ctx=context, name="distlaw").partition("\n")[2]
    return EXAMPLES.sub(_as_code, text)


def _as_code(found: re.Match[str]) -> str:
    lines = [line.strip() for line in found[0].splitlines() if line.strip()]
    return "\n".join(["```console", *(f"$ {line}" for line in lines), "```", "", ""])


@cache
def _directory() -> Path:
    """Return the directory where the pages' commands run, one after the other."""
    directory = Path(mkdtemp(prefix="distlaw-docs-"))
    for name, path in SAMPLES.items():
        (directory / name).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, directory / name)
    return directory


@cache
def run(line: str) -> str:
    """Return the output of ``distlaw ...``; raise ValueError if the command fails."""
    arguments = shlex.split(line)
    if arguments[:1] != ["distlaw"]:
        raise ValueError(f"only distlaw commands are run, not {line!r}")
    with chdir(_directory()), patch.dict(os.environ, COLUMNS=str(WIDTH), NO_COLOR="1"):
        result = CliRunner().invoke(app, arguments[1:])
    if result.exit_code:
        raise ValueError(f"{line}: exit {result.exit_code}: {result.output}{result.exception or ''}")
    return "".join(f"{_wrapped(text)}\n" for text in result.stdout.rstrip().splitlines())


def _wrapped(line: str) -> str:
    """Wrap sentences at the width of a page; keep rows of tables, whose columns are two spaces apart."""
    table = re.search(r"\S  +\S", line)
    return line if table else "\n".join(textwrap.wrap(line, WIDTH, subsequent_indent="  ")) or line


def copy_figures(to: Path) -> None:
    """Copy the figures that commands and code drew."""
    to.mkdir(exist_ok=True)
    for figure in _directory().glob("*.svg"):
        shutil.copy(figure, to)


def run_python(code: str, names: dict[str, object]) -> str:
    """Return what ``code`` prints; it reads and extends ``names``."""
    with chdir(_directory()), redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "a page of the documentation", "exec"), names)  # noqa: S102  (our own pages)
    return printed.getvalue()


def commands(markdown: str) -> Iterator[str]:
    """Yield the ``distlaw`` lines of a page's blocks of shell, up to comments, pipes and redirections."""
    for block in FENCED.findall(markdown) + INDENTED.findall(markdown):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            if line.startswith("distlaw ") and "[OPTIONS]" not in line:
                words = shlex.split(line, comments=True, posix=False)
                yield " ".join(takewhile(lambda word: word not in (">", "|", "&&"), words))


def objection(line: str) -> str | None:
    """Return the error that ``line`` causes (unknown command or option, missing argument), or None."""
    arguments = shlex.split(line)[1:]
    if "--help" in arguments:
        arguments = arguments[: arguments.index("--help")]
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="distlaw")
    while arguments and isinstance(command, TyperGroup):
        name = arguments.pop(0)
        found = command.get_command(context, name)
        if found is None:
            return f"no command {name!r}"
        command = found
        context = typer.Context(command, info_name=name, parent=context)
    if not arguments or isinstance(command, TyperGroup):
        return None
    try:
        command.parse_args(context, arguments)
    except Exception as error:
        tell = getattr(error, "format_message", error.__str__)
        return str(tell())
    return None
