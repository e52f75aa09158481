"""The runs table: one tidy row a run, read from anyone's file and checked at the door.

Nothing is dropped silently. A row that cannot be used keeps its place and says why in the column
``excluded`` (empty for rows that are used); a table that cannot be trusted at all is an InputError that
names the file, the column and the row. Rows are counted from 1, the header not included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow.parquet import ParquetFile

from fits.cost import training_flops
from fits.scrutiny import exclusions, refuse_implausible, refuse_inconsistent
from fits.thinning import gathered
from scaling.errors import InputError
from scaling.units import parse_quantity

REQUIRED = ("params", "tokens", "loss")
NUMBERS = (
    "params", "tokens", "loss", "loss_se", "bits_per_byte", "teacher_params", "teacher_tokens",
    "teacher_loss", "epochs", "flops", "seconds", "compute", "loss_bits", "teacher_loss_bits",
)  # fmt: skip
KINDS = ("supervised", "distillation")
SYMBOLS = {
    "N": "params", "D": "tokens", "L": "loss", "C": "compute", "N_T": "teacher_params",
    "D_T": "teacher_tokens", "L_T": "teacher_loss", "N_S": "params", "D_S": "tokens", "L_S": "loss",
}  # fmt: skip
IN_BITS = {"loss_bits": "loss", "teacher_loss_bits": "teacher_loss"}
"""Losses in bits/token, by the column in nats/token that they fill."""
DESCRIBING = ("run", "kind", "teacher", "method", "seed", "status", "tokenizer", "vocab", "context", "corpus")
"""What else of ours a column may be mapped to."""
OF_TEACHERS = ("teacher", "teacher_params", "teacher_tokens", "teacher_loss", "method")
"""Columns that only distillations fill."""
READ_AT_ONCE = 250_000
"""Rows of a file that are read before more of it is."""


def read_runs(path: str | Path, mapping: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read a runs table from CSV, TSV, Parquet or JSON lines, and validate it.

    ``mapping`` names the file's column for one of ours, which may be given by name or by symbol:
    ``{"N": "Model Size", "C": "Training FLOP", "L": "loss"}``. A column ``compute`` (C, in FLOPs, of this
    model's training alone) stands in for missing tokens: D = C/(6N), or C/(3F) with the FLOPs F of a forward
    pass where the table gives ``vocab`` and ``context``; ``tokens_from`` then says so. ``loss_bits``
    (bits/token) stands in for a missing loss. Names and states of exported W&B and MLflow tables are known.
    Of more than a million rows neighbouring checkpoints are thinned (:mod:`fits.thinning`).

    Raises InputError for anything :func:`validate` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if path.suffix.lower() not in READERS:
        raise InputError(f"{path}: a runs table ends in {', '.join(READERS)}, not {path.suffix!r}")
    try:
        parts = READERS[path.suffix.lower()](path)
        return validate(gathered(_exported(rename(_separated(part), mapping or {})) for part in parts))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, OSError, UnicodeDecodeError) as error:  # pandas' and pyarrow's parsing errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable {path.suffix[1:]} table ({reason})") from error


def _separated_by(separator: str) -> Callable[[Path], Iterator[pd.DataFrame]]:
    def read(path: Path) -> Iterator[pd.DataFrame]:
        with pd.read_csv(path, sep=separator, low_memory=False, chunksize=READ_AT_ONCE) as parts:
            yield from parts

    return read


def _json_lines(path: Path) -> Iterator[pd.DataFrame]:
    with pd.read_json(path, lines=True, chunksize=READ_AT_ONCE) as parts:
        yield from parts


def _parquet(path: Path) -> Iterator[pd.DataFrame]:
    with ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=READ_AT_ONCE):
            yield batch.to_pandas()


READERS: dict[str, Callable[[Path], Iterator[pd.DataFrame]]] = {
    ".csv": _separated_by(","),
    ".tsv": _separated_by("\t"),
    ".parquet": _parquet,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}


def parse_mapping(
    text: str, option: str = "--map", example: str = "N=params,D=tokens,L=loss"
) -> dict[str, str]:
    """``"N=params,D=tokens"`` as a mapping; raises InputError, naming ``option``, where it is not one."""
    pairs = [part.partition("=")[::2] for part in text.split(",") if part.strip()]
    if not all(ours.strip() and theirs.strip() for ours, theirs in pairs):
        raise InputError(f"{option} is a list like {example}, not {text!r}")
    named = [ours.strip() for ours, _ in pairs]
    for ours in named:
        if named.count(ours) > 1:
            raise InputError(f"{option} gives {ours} {named.count(ours)} times: {text!r}")
    return {ours.strip(): theirs.strip() for ours, theirs in pairs}


def rename(frame: pd.DataFrame, mapping: Mapping[str, str]) -> pd.DataFrame:
    """The table with its columns under our names; the mapping's names win over what is there."""
    known = {*SYMBOLS, *NUMBERS, *DESCRIBING}
    names: dict[str, str] = {}
    for ours, theirs in mapping.items():
        if ours not in known:
            raise InputError(f"cannot map to {ours!r}; the names are {', '.join(sorted(known))}")
        if theirs not in frame.columns:
            raise InputError(f"no column {theirs!r} to map {ours} to; {_columns(frame, theirs)}")
        name = SYMBOLS.get(ours, ours)
        if theirs in names:
            raise InputError(f"column {theirs!r} cannot be both {names[theirs]} and {name}")
        if name in names.values():
            raise InputError(f"two columns are mapped to {name}, {theirs!r} is the second")
        names[theirs] = name
    kept = [column for column in frame.columns if column in names or column not in names.values()]
    return frame[kept].rename(columns=names)


def _separated(frame: pd.DataFrame) -> pd.DataFrame:
    if len(frame.columns) == 1 and ";" in str(frame.columns[0]):
        raise InputError("the columns are separated by semicolons; save it with commas (and decimal points)")
    return frame


def _exported(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that W&B (``State`` beside ``ID`` or ``Name``) and MLflow (``run_id``) export, as ours."""
    of_wandb = "State" in frame
    theirs = {"run": ("run_id", "ID", "Name") if of_wandb else ("run_id",), "status": ("State",)}
    found = {
        next((name for name in names if name in frame), None): ours
        for ours, names in theirs.items()
        if ours not in frame
    }
    return frame.rename(columns={name: ours for name, ours in found.items() if name is not None})


def validate(frame: pd.DataFrame) -> pd.DataFrame:
    """The table in the one form that everything else expects; extra columns are kept.

    Adds ``run``, ``kind``, ``teacher_loss``, ``seed`` and ``excluded`` where they are missing; a teacher's
    loss may also come from the run that the column ``teacher`` names.

    Raises InputError for a missing column, a value that is no number, an impossible size or unit, a run that
    contradicts itself, or losses that cannot be compared (other texts, tokenizers, units).
    """
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"runs are a pandas DataFrame, one row a run, not a {type(frame).__name__}")
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise InputError(f"the table has two columns called {twice!r}")
    table = gathered([frame]).reset_index(drop=True).copy()
    if not len(table):
        raise InputError("the table has no rows")
    for column in NUMBERS:
        if column in table:
            table[column] = _numbers(table, column)
    for bits, nats in IN_BITS.items():
        if bits in table and nats not in table:
            table[nats] = table[bits] * np.log(2.0)
    if {"compute", "params"} <= set(table.columns):
        _from_compute(table)
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        hint = "; say which of yours it is with --map, for example --map N=size,D=tokens,L=val_loss"
        hint += " (or C=flops, the compute, for D)" if missing[0] == "tokens" else ""
        raise InputError(f"no column {missing[0]!r}; {_columns(table, missing[0])}{hint}")
    if "teacher_loss" not in table:
        table["teacher_loss"] = np.nan
    rows = pd.Series([f"row-{i + 1}" for i in table.index], index=table.index)
    table["run"] = table["run"].astype(str).where(table["run"].notna(), rows) if "run" in table else rows
    if "teacher" in table:
        table["teacher_loss"] = table["teacher_loss"].fillna(_of_teachers(table))
    table["kind"] = _kinds(table)
    if "seed" not in table:
        table["seed"] = 0
    table["excluded"] = exclusions(table)
    refuse_implausible(table)
    refuse_inconsistent(table)
    return table


def _from_compute(table: pd.DataFrame) -> None:
    """Fill missing tokens from the compute of training, and say in ``tokens_from`` where and how."""
    tokens = table["tokens"] if "tokens" in table else pd.Series(np.nan, index=table.index)
    empty = tokens.isna() & table["compute"].notna()
    cost, rule = training_flops(table)
    table["tokens"] = tokens.where(~empty, table["compute"] / cost)
    if empty.any():
        table["tokens_from"] = np.where(empty, rule, "")


def _columns(frame: pd.DataFrame, wanted: str) -> str:
    close = get_close_matches(wanted, [str(c) for c in frame.columns], n=1)
    there = ", ".join(str(column) for column in frame.columns)
    return f"the columns are: {there}" + (f" (did you mean {close[0]!r}?)" if close else "")


def _numbers(table: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column as floats; text like "143M" is understood, anything else is an error with its row."""
    values = table[column]
    if pd.api.types.is_bool_dtype(values):
        raise InputError(f"column {column!r} holds true/false, not numbers")
    if pd.api.types.is_numeric_dtype(values):
        return values.astype(np.float64)
    plain = pd.to_numeric(values, errors="coerce").astype(np.float64)
    for row in map(int, np.flatnonzero(plain.isna() & values.notna())):
        text = str(values.iloc[row]).strip()
        if re.search(r",(?!\d{3}(?!\d))", text):
            raise InputError(f"row {row + 1}, column {column!r}: {text!r} has a decimal comma; write a point")
        try:
            empty = text.lower() in ("", "nan", "none")
            plain.iloc[row] = np.nan if empty else parse_quantity(text, column)
        except InputError as error:
            raise InputError(f"row {row + 1}, column {column!r}: {text!r} is not a number") from error
    return plain


def _kinds(table: pd.DataFrame) -> pd.Series[str]:
    """Each row's kind; where the table does not say, whatever fills a teacher's column is a distillation."""
    if "kind" not in table:
        said = table[[name for name in OF_TEACHERS if name in table]].astype(object)
        named = said.notna() & ~said.isin(["", "none", "supervised"])
        told = np.where(named.any(axis=1), "distillation", "supervised").astype(object)
        return pd.Series(told, index=table.index, dtype=object)
    kinds = table["kind"].astype(str).str.strip().str.lower()
    wrong = np.flatnonzero(~kinds.isin(KINDS))
    if len(wrong):
        raise InputError(
            f"row {wrong[0] + 1}, column 'kind': {kinds.iloc[wrong[0]]!r}; "
            "it is 'supervised' or 'distillation'"
        )
    return kinds.astype(object)


def _of_teachers(table: pd.DataFrame) -> pd.Series[float]:
    """The last loss of the run that each row names as its teacher, where the table holds that run."""
    last = table.sort_values("tokens").drop_duplicates("run", keep="last").set_index("run")["loss"]
    return table["teacher"].astype(str).map(last)
