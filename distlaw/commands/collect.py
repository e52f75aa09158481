"""``distlaw collect``: from the logs that tools left to a table of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distlaw.tables import BytesPerToken, LossUnit, Map, Where
from scaling.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MAX_LISTED = 8
"""Most runs whose missing values are listed."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("collect")(collect_command)


def collect_command(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Files and directories with logs, recognized by their content; wandb:ENTITY/PROJECT for "
            "W&B's API.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Write the table (CSV) here; without it, to standard output.")
    ] = None,
    mapping: Map = None,
    points: Annotated[
        str,
        typer.Option(
            metavar="last|best|decayed|all",
            help="Evaluations that become rows: of each run the last, the lowest, the last after each decay "
            "of the learning rate, or all.",
        ),
    ] = "last",
    names: Annotated[
        str,
        typer.Option(
            metavar="PATTERN",
            help="Fill columns from runs' names: 'students/{teacher}/seed{seed}'; * stands for any part.",
        ),
    ] = "",
    tokens_per_step: Annotated[
        str,
        typer.Option(
            metavar="TOKENS",
            help="Tokens of a step, where none are logged: 65536, or settings, 'batch_size*seq_length'.",
        ),
    ] = "",
    loss_unit: LossUnit = "",
    bytes_per_token: BytesPerToken = None,
    where: Where = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Keep a further setting or metric as a column. May be repeated."),
    ] = None,
) -> None:
    """Read the logs of training tools into one table of runs.

    Hugging Face Trainer and TRL, TensorBoard, JSON lines, CSV, W&B, MLflow, Optuna, Ray Tune; text logs of
    Megatron-LM, torchtitan, nanochat and OLMo-core. What could not be found is named per run.

    Examples:

        distlaw collect runs/ --out runs.csv

        distlaw collect grid/ --names 'students/{teacher}/*' --tokens-per-step 65536 --out runs.csv
    """
    from fits import collect
    from fits.table.columns.column_names import parse_mapping

    table = collect(
        paths, parse_mapping(",".join(mapping or ())) if mapping else None,
        points=points, names=names, loss_unit=loss_unit or None, bytes_per_token=bytes_per_token,
        tokens_per_step=tokens_per_step, where=where or (), keep=keep or (),
    )  # fmt: skip
    if out is None:
        typer.echo(table.to_csv(index=False), nl=False)
    else:
        _write(table, out)
    for line in summary(table, out):
        typer.echo(line, err=out is None)


def _write(table: pd.DataFrame, out: Path) -> None:
    try:
        table.to_csv(out, index=False)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from error


def summary(table: pd.DataFrame, out: Path | None) -> list[str]:
    """Return lines on how many runs were read, from which formats, and on what is missing in which."""
    runs = table.drop_duplicates("run")
    formats = runs["format"].value_counts()
    there = ", ".join(f"{count} from {name}" for name, count in formats.items())
    whole = runs["missing"] == ""
    measured = whole & runs["loss"].notna()
    lines = [f"{len(runs)} runs, {measured.sum()} with size, tokens and held-out loss: {there}"]
    if len(table) != len(runs):
        lines.append(f"{len(table)} rows: several evaluations of a run")
    for run, missing in runs.loc[~whole, ["run", "missing"]].head(MAX_LISTED).itertuples(index=False):
        lines.append(f"{run}: {missing}")
    if (~whole).sum() > MAX_LISTED:
        lines.append(f"... and {(~whole).sum() - MAX_LISTED} more, in the column missing")
    lines += [f"note: {note}" for note in table.attrs.get("collect_notes", [])[:20]]
    return [*lines, f"written to {out}"] if out else lines
