"""Options that say how a table of runs is read, for every command that reads one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distlaw.number_options import number
from scaling.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Table = Annotated[
    Path,
    typer.Argument(
        metavar="TABLE",
        help="CSV, TSV, JSON, JSON lines or Parquet, compressed or not; - for standard input; or a sweep's "
        "store.",
    ),
]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="Map column names, ours=yours, by name or symbol: N=params,D=tokens,L=val_loss,L_T=t_loss. "
        "May be repeated. Also run (what the checkpoints of one run share), kind, seed, status, teacher, "
        "method; and C, the compute of a run's own training, from which missing tokens follow. "
        "D=seen*1e9 states a unit, "
        'L="a, b" quotes a name, method= says that there is no such column.',
    ),
]
LossUnit = Annotated[
    str,
    typer.Option(help="Unit of the losses: nats/token (the default), bits/token, bits/byte or perplexity."),
]
BytesPerToken = Annotated[
    float | None,
    typer.Option(
        parser=number, metavar="<float>", help="Convert losses from bits/byte; 1 gives a law in nats/byte."
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="Read only rows that fulfil it: 'state==finished', 'tokens>=1B'. May be repeated.",
    ),
]
Decimal = Annotated[str, typer.Option(help="Decimal mark of the table's numbers: . or ,")]


def table_name(path: Path) -> str:
    """Return the name of a table's fit: that of its file, without suffixes such as ``.csv.gz``."""
    if str(path) == "-":
        return "standard-input"
    packed = path.suffix in (".gz", ".bz2", ".xz", ".zst")
    return path.with_suffix("").stem if packed else path.stem


def store_at(path: Path) -> str | None:
    """The directory or URL of a store that a table's path is, or None if it is a file's.

    Paths take one of the two slashes of a URL's ``://`` away.
    """
    protocol, colon, rest = str(path).partition(":/")
    if not colon or path.exists():
        return str(path) if path.is_dir() else None
    from sweeps.store.store import BUCKETS  # heavy: only for URLs

    return f"{protocol}://{rest.lstrip('/')}" if protocol in BUCKETS else None


def echo_left_out(table: pd.DataFrame) -> None:
    """Say on standard error which runs of a store are not in its table, and why."""
    from sweeps.watch.runs_table import LEFT_OUT, left_out_notes  # heavy: only for stores

    for note in left_out_notes(table.attrs.get(LEFT_OUT, {})):
        typer.echo(note, err=True)


def load_table(
    path: Path,
    mapping: str | Sequence[str] | None = None,
    loss_unit: str = "",
    bytes_per_token: float | None = None,
    decimal: str = ".",
    where: Sequence[str] | None = None,
) -> pd.DataFrame:
    """A runs table from a file, from standard input, or from the directory of a sweep's store."""
    from fits.table.columns.column_names import parse_mapping
    from fits.table.runs import read_runs, validate

    place = store_at(path)
    if place is not None:
        if mapping or loss_unit or bytes_per_token is not None:
            raise InputError("--map and units are for tables; a sweep's store has our columns already")
        from sweeps import results  # heavy: only for stores

        try:
            table = results(place)
            echo_left_out(table)
            return validate(table, where=where or ())
        except KeyError as error:
            raise InputError(
                f"{place}: this store was written by another version of distlaw (a run without {error}); "
                "fit it with that version, or run the sweep again in a new directory"
            ) from error
    return read_runs(
        path,
        parse_mapping(mapping if isinstance(mapping, str) else ",".join(mapping or ()), absent=True),
        loss_unit=loss_unit or None,
        bytes_per_token=bytes_per_token,
        decimal=decimal,
        where=where or (),
    )
