"""The runs table: one tidy row a run, read from anyone's file and checked at the door.

Nothing is dropped silently. A row that cannot be used keeps its place and says why in the column
``excluded`` (empty for rows that are used); a table that cannot be trusted at all is an InputError that
names the file, the column and the row. Rows are counted from 1, the header not included.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

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
MOST_ROWS = 2_000_000
FINISHED = ("done", "finished", "completed", "success")


def read_runs(path: str | Path, mapping: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read a runs table from CSV, TSV, Parquet or JSON lines, and validate it.

    ``mapping`` names the file's column for one of ours, which may be given by name or by symbol:
    ``{"N": "Model Size", "C": "Training FLOP", "L": "loss"}``. A column ``compute`` (C, in FLOPs) stands in
    for missing tokens as D = C/(6N), and ``loss_bits`` (bits/token) for a missing loss.

    Raises InputError for anything :func:`validate` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    readers = {
        ".csv": lambda: pd.read_csv(path, low_memory=False),
        ".tsv": lambda: pd.read_csv(path, sep="\t", low_memory=False),
        ".parquet": lambda: pd.read_parquet(path),
        ".jsonl": lambda: pd.read_json(path, lines=True),
        ".ndjson": lambda: pd.read_json(path, lines=True),
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: a runs table ends in {', '.join(readers)}, not {path.suffix!r}")
    try:
        frame = readers[path.suffix.lower()]()
    except (ValueError, OSError, UnicodeDecodeError) as error:  # pandas' and pyarrow's parsing errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable {path.suffix[1:]} table ({reason})") from error
    try:
        return validate(rename(frame, mapping or {}))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def parse_mapping(text: str, option: str = "--map") -> dict[str, str]:
    """``"N=params,D=tokens"`` as a mapping; raises InputError, naming ``option``, where it is not one."""
    pairs = [part.split("=", 1) for part in text.split(",") if part.strip()]
    if any(len(pair) != 2 or not pair[1].strip() for pair in pairs):
        raise InputError(f"{option} is a list like N=params,D=tokens,L=loss, not {text!r}")
    return {ours.strip(): theirs.strip() for ours, theirs in pairs}


def rename(frame: pd.DataFrame, mapping: Mapping[str, str]) -> pd.DataFrame:
    """The table with its columns under our names; the mapping's names win over what is there."""
    known = {*SYMBOLS, *NUMBERS, "run", "kind", "teacher", "method", "seed", "status", "tokenizer"}
    for ours, theirs in mapping.items():
        if ours not in known:
            raise InputError(f"cannot map to {ours!r}; the names are {', '.join(sorted(known))}")
        if theirs not in frame.columns:
            raise InputError(f"no column {theirs!r} to map {ours} to; {_columns(frame, theirs)}")
    names = {theirs: SYMBOLS.get(ours, ours) for ours, theirs in mapping.items()}
    kept = [column for column in frame.columns if column in names or column not in names.values()]
    return frame[kept].rename(columns=names)


def validate(frame: pd.DataFrame) -> pd.DataFrame:
    """The table in the one form that everything else expects; extra columns are kept.

    Adds ``run``, ``kind``, ``teacher_loss``, ``seed`` and ``excluded`` where they are missing; a teacher's
    loss may also come from the run that the column ``teacher`` names.

    Raises InputError for a missing column, a value that is no number, an impossible size or unit, a run that
    contradicts itself, or losses measured with different tokenizers.
    """
    table = frame.reset_index(drop=True).copy()
    if not len(table):
        raise InputError("the table has no rows")
    if len(table) > MOST_ROWS:
        raise InputError(
            f"the table has {len(table):,} rows, of at most {MOST_ROWS:,}: thin its checkpoints, "
            "neighbours in one run say nearly the same"
        )
    for column in NUMBERS:
        if column in table:
            table[column] = _numbers(table, column)
    for bits, nats in IN_BITS.items():
        if bits in table and nats not in table:
            table[nats] = table[bits] * np.log(2.0)
    if {"compute", "params"} <= set(table.columns):
        from_compute = table["compute"] / (6.0 * table["params"])
        table["tokens"] = table["tokens"].fillna(from_compute) if "tokens" in table else from_compute
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        hint = "; say which of yours it is with --map, for example --map N=size,D=tokens,L=val_loss"
        raise InputError(f"no column {missing[0]!r}; {_columns(table, missing[0])}{hint}")
    if "teacher_loss" not in table:
        table["teacher_loss"] = np.nan
    table["run"] = table["run"].astype(str) if "run" in table else [f"row-{i + 1}" for i in table.index]
    if "teacher" in table:
        table["teacher_loss"] = table["teacher_loss"].fillna(_of_teachers(table))
    table["kind"] = _kinds(table)
    if "seed" not in table:
        table["seed"] = 0
    _one_tokenizer(table)
    table["excluded"] = _exclusions(table)
    _plausible(table)
    _consistent(table)
    return table


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
        try:
            empty = text.lower() in ("", "nan", "none")
            plain.iloc[row] = np.nan if empty else parse_quantity(text, column)
        except InputError as error:
            raise InputError(f"row {row + 1}, column {column!r}: {text!r} is not a number") from error
    return plain


def _kinds(table: pd.DataFrame) -> pd.Series[str]:
    """Each row's kind; told from the teacher's loss where the table does not say."""
    if "kind" not in table:
        named = np.where(table["teacher_loss"].notna(), "distillation", "supervised").astype(object)
        return pd.Series(named, index=table.index, dtype=object)
    kinds = table["kind"].astype(str)
    wrong = np.flatnonzero(~kinds.isin(KINDS))
    if len(wrong):
        raise InputError(
            f"row {wrong[0] + 1}, column 'kind': {kinds.iloc[wrong[0]]!r}; "
            "it is 'supervised' or 'distillation'"
        )
    return kinds


def _of_teachers(table: pd.DataFrame) -> pd.Series[float]:
    """The last loss of the run that each row names as its teacher, where the table holds that run."""
    last = table.sort_values("tokens").drop_duplicates("run", keep="last").set_index("run")["loss"]
    return table["teacher"].astype(str).map(last)


def _one_tokenizer(table: pd.DataFrame) -> None:
    if "tokenizer" in table and table["tokenizer"].nunique() > 1:
        names = ", ".join(repr(str(name)) for name in sorted(table["tokenizer"].dropna().unique())[:4])
        raise InputError(
            f"column 'tokenizer' names {table['tokenizer'].nunique()} tokenizers ({names}): nats/token of "
            "different tokenizers cannot be compared; fit one table for each"
        )


def _exclusions(table: pd.DataFrame) -> pd.Series[str]:
    """Why each row cannot be used; empty where it can."""
    why = pd.Series("", index=table.index)

    def exclude(rows: pd.Series[bool], reason: str) -> None:
        why[rows & (why == "")] = reason

    if "status" in table:
        status = table["status"].astype(str).str.lower()
        for name in status[table["status"].notna() & ~status.isin(FINISHED)].unique():
            exclude(status == name, f"status is {name!r}")
    exclude(table["loss"].isna(), "no loss")
    exclude(np.isinf(table["loss"]), "the loss is infinite: the run diverged")
    for column in ("params", "tokens"):
        exclude(~np.isfinite(table[column]), f"no {column}")
    distilled = table["kind"] == "distillation"
    exclude(distilled & ~np.isfinite(table["teacher_loss"]), "a distillation without its teacher's loss")
    exclude(_repeated(table), "the same row again")
    return why


def _repeated(table: pd.DataFrame) -> pd.Series[bool]:
    same = [c for c in ("run", "kind", "params", "tokens", "loss", "teacher_loss", "seed") if c in table]
    named = ~table["run"].astype(str).str.fullmatch(r"row-\d+")
    return table.duplicated(subset=same) & named & table["loss"].notna()


def _plausible(table: pd.DataFrame) -> None:
    """Refuse what no run can have measured, and the units people most often mix up."""
    used = table[table["excluded"] == ""]
    for column, least in (("params", 0.0), ("tokens", 0.0), ("loss", 0.0), ("teacher_loss", 0.0)):
        bad = used[used[column] <= least]
        if len(bad):
            row, value = bad.index[0], bad[column].iloc[0]
            raise InputError(f"row {row + 1}, column {column!r}: {value:g} is not positive")
    if not len(used):
        reasons = ", ".join(f"{n} x {why}" for why, n in table["excluded"].value_counts().items())
        raise InputError(f"no row can be used: {reasons}")
    for column, unit in (("params", "parameters"), ("tokens", "tokens")):
        largest = used[column].max()
        if largest < 1e3:
            raise InputError(
                f"column {column!r}: the largest value is {largest:g}; sizes are plain {unit} "
                "(143e6 or '143M'), not millions or billions"
            )
        odd = used[used[column] < 1e3]
        if len(odd):
            raise InputError(
                f"row {odd.index[0] + 1}, column {column!r}: {odd[column].iloc[0]:g} beside {largest:g}; "
                f"units seem to be mixed, all are plain {unit}"
            )
    for column in ("loss", "teacher_loss"):
        bad = used[used[column] > 20.0]
        if len(bad):
            row, value = bad.index[0], bad[column].iloc[0]
            raise InputError(
                f"row {row + 1}, column {column!r}: {value:g} nats/token is worse than a uniform guess over "
                "480 million tokens; a loss is in nats/token (not perplexity, not a sum)"
            )
    if used["loss"].nunique() == 1 and len(used) > 2:
        raise InputError(f"column 'loss': every run has {used['loss'].iloc[0]:g}")


def _consistent(table: pd.DataFrame) -> None:
    """A run has one size, and one loss after so many tokens."""
    used = table[(table["excluded"] == "") & table.duplicated("run", keep=False)]
    for name, column in (("run", "params"), ("run", "kind")):
        counts = used.groupby(name)[column].nunique()
        if (counts > 1).any():
            run = counts.index[counts > 1][0]
            rows = ", ".join(str(i + 1) for i in used.index[used["run"] == run][:4])
            raise InputError(f"run {run!r} (rows {rows}): one run cannot have several {column}")
    clash = used[used.duplicated(["run", "tokens", "seed"], keep=False)]
    if len(clash):
        run = clash["run"].iloc[0]
        rows = clash.index[clash["run"] == run]
        losses = ", ".join(f"{value:g}" for value in clash.loc[rows, "loss"].iloc[:4])
        raise InputError(
            f"run {run!r} (rows {', '.join(str(i + 1) for i in rows[:4])}): different losses after the same "
            f"tokens ({losses}); give repeated seeds different run names or a column 'seed'"
        )
