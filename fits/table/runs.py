"""The runs table: one tidy row for each run, read from files of any tool, and validated.

No row is dropped silently. A row that cannot be used stays, with the reason in the column ``excluded`` (empty
for rows that are used). An inconsistent table raises InputError with the file, the column and the row. Rows
are counted from 1, without the header. Headers that were read under another name are listed in
``table.attrs["read_as"]``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from fits.table.columns.cells import (
    DECIMAL_MARKS,
    HEADERS,
    describe_column,
    holds_numbers,
    infer_types,
    is_empty,
    run_names,
    to_numbers,
)
from fits.table.columns.column_names import (
    SYMBOLS,
    SYNONYMS,
    ColumnMapping,
    list_columns,
    map_part,
    number_duplicates,
    resolve_columns,
    unused_name,
    weight_notes,
)
from fits.table.columns.loss_units import (
    MAPPED,
    convert_to_nats,
    missing_loss,
    refuse_contradictory_losses,
    refuse_other_unit_in_header,
    remove_units,
    validate_loss_unit,
)
from fits.table.experts import fill_params
from fits.table.files import DAMAGED, read_parts
from fits.table.flops import training_flops
from fits.table.subsample import READ_AS, concatenate_parts
from fits.table.teacher_join import NO_LOSS, join_teachers, refuse_missing_teachers
from fits.table.validation.plausibility import (
    HEADER_SCALES,
    STATED,
    check_compute,
    is_other_quantity,
    refuse_implausible,
)
from fits.table.validation.validation import exclusions, is_foreign_status, refuse_inconsistent
from fits.table.where import matching_rows
from scaling.errors import InputError

REQUIRED = ("params", "tokens", "loss")
OPTIONAL_NUMBERS = (
    *("bits_per_byte", "teacher_tokens", "epochs", "unique_tokens", "flops", "seconds", "compute"),
)
"""Columns of numbers that are ignored if they hold none."""
NUMBERS = (
    *("params", "active_params", "total_params", "tokens", "loss", "loss_se", "projected_sd"),
    *("teacher_params", "teacher_loss"),
    *("loss_bits", "teacher_loss_bits", *OPTIONAL_NUMBERS),
)
KINDS = ("supervised", "distillation")
TEACHER_COLUMNS = ("teacher", "teacher_params", "teacher_tokens", "teacher_loss", "method")
"""Columns that are filled for distillations only."""
_AS_TEXT = {*NUMBERS, "run", "teacher", "kind", "method", "status", "corpus", "tokenizer", "setting"}


@dataclass(slots=True)
class _ReadOptions:
    """Options for reading a table, with the column mapping and notes found while reading."""

    mapping: Mapping[str, str | None] = field(default_factory=dict)
    loss_unit: str | None = None
    bytes_per_token: float | None = None
    decimal: str = "."
    where: str | Sequence[str] = ()
    columns: ColumnMapping = field(default_factory=ColumnMapping)
    headers: set[str] = field(default_factory=set)
    """Headers of all parts so far."""
    rows: int = 0
    """Rows read, before ``where`` selects."""

    def __post_init__(self) -> None:
        self.where = [self.where] if isinstance(self.where, str) else self.where
        self.loss_unit = validate_loss_unit(self.loss_unit, self.bytes_per_token)
        if self.decimal not in DECIMAL_MARKS:
            raise InputError(f"the decimal mark must be '.' or ',', not {self.decimal!r}")

    def renamed(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a part of the table with canonical column names."""
        headers = number_duplicates(list(frame.columns))
        frame = frame.set_axis(headers, axis=1)
        other = [symbol for symbol in SYMBOLS if symbol in frame and is_other_quantity(symbol, frame[symbol])]
        columns = resolve_columns(headers, self.mapping, self.loss_unit, other)
        refuse_other_unit_in_header(columns.sources, self.loss_unit)
        self.columns.sources.update(columns.sources)
        self.columns.set_aside |= columns.set_aside
        self.rows += len(frame)
        self.headers.update(headers)
        if self.where:
            frame = matching_rows(frame, self.where, self._header_of, self.headers)
        return frame.set_axis(columns.new_names(headers), axis=1)

    def _header_of(self, name: str) -> str:
        """Return the header that is read as a canonical column."""
        source = self.columns.sources.get(SYMBOLS.get(name, name))
        return source.header if source else name

    def stated(self) -> list[str]:
        """Return the canonical columns whose unit the caller gave."""
        units = [canonical for canonical, source in self.columns.sources.items() if source.stated]
        is_empty = [canonical for canonical, mapped in self.mapping.items() if not mapped]
        return [*units, *is_empty, *(["loss", "teacher_loss"] if self.loss_unit else [])]


def read_runs(
    path: str | Path | BinaryIO | pd.DataFrame,
    mapping: Mapping[str, str | None] | None = None,
    *,
    loss_unit: str | None = None,
    bytes_per_token: float | None = None,
    decimal: str = ".",
    where: str | Sequence[str] = (),
) -> pd.DataFrame:
    r"""Read a runs table from CSV, TSV, JSON, JSON lines or Parquet, and validate it.

    Args:
        path: The file, compressed (gz, bz2, xz, zst) or not; "-" for standard input; an open binary file; or
            a data frame, which is read as a file of the same content is.
        mapping: Header of each canonical column, given by name or symbol: ``{"N": "Model Size",
            "C": "Training FLOP"}``. A factor states a unit (``{"D": "tokens*1e9"}``); an empty name excludes
            a column (``{"method": ""}``). Without it, the names in
            :data:`fits.table.columns.column_names.SYNONYMS`, the papers' symbols and exported W&B tables are
            recognized.
        loss_unit: "nats/token" (the default), "bits/token", "bits/byte" or "perplexity".
        bytes_per_token: Mean bytes of a token of the held-out text, which converts losses in bits/byte.
        decimal: Decimal mark of the cells, "." or ",".
        where: Conditions that the rows to be read fulfil: ``["state==finished", "tokens>=1B"]``. Columns are
            named as in the file, or by their canonical names.

    Returns:
        The validated table. A column ``compute`` (C, in FLOPs, of this model's training) replaces missing
        tokens: D = C/(6N), or C/(3F) with the FLOPs F of a forward pass if the table gives ``vocab`` and
        ``context``; ``tokens_from`` names the rule. Of more than a million rows, neighboring checkpoints are
        thinned (:mod:`fits.table.subsample`).

    Raises:
        InputError: for a file that cannot be read, and for anything :func:`validate` refuses.

    >>> import io
    >>> import fits
    >>> text = b"Model Size,tokens_seen,val_loss\n1e8,2e9,3.1\n2e8,4e9,2.9\n"
    >>> runs = fits.read_runs(io.BytesIO(text), {"N": "Model Size"})
    >>> runs[["kind", "params", "tokens", "loss"]].values.tolist()[0]
    ['supervised', 100000000.0, 2000000000.0, 3.1]
    """
    if isinstance(path, pd.DataFrame):
        return validate(
            path, mapping,
            loss_unit=loss_unit, bytes_per_token=bytes_per_token, decimal=decimal, where=where,
        )  # fmt: skip
    named = {"-": "standard input"}.get(str(path), str(path))
    name = named if isinstance(path, str | Path) else "the table"
    reading = _ReadOptions(mapping or {}, loss_unit, bytes_per_token, decimal, where)
    try:
        table = concatenate_parts(reading.renamed(part) for part in read_parts(path))
        return _validated(infer_types(table, _AS_TEXT), reading)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(name) else f"{name}: {text}") from error
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name}: not a readable table ({reason})") from error


def validate(
    frame: pd.DataFrame,
    mapping: Mapping[str, str | None] | None = None,
    *,
    loss_unit: str | None = None,
    bytes_per_token: float | None = None,
    decimal: str = ".",
    where: str | Sequence[str] = (),
) -> pd.DataFrame:
    """Validate a table of runs; extra columns are kept.

    Args:
        frame: One row for each run or checkpoint.
        mapping: As in :func:`read_runs`, and so are the other arguments.
        loss_unit: Unit of the losses.
        bytes_per_token: Mean bytes of a token of the held-out text.
        decimal: Decimal mark of the cells.
        where: Conditions that the rows to be used fulfil.

    Returns:
        The table with canonical names and units. ``run``, ``kind``, ``teacher_loss``, ``seed`` and
        ``excluded`` are added if missing; a teacher's loss may also come from the run that ``teacher`` names.

    Raises:
        InputError: for a missing column, a value that is not a number, an impossible size or unit, a run that
            contradicts itself, or losses that cannot be compared (other texts, tokenizers, units).

    >>> import fits
    >>> import pandas as pd
    >>> runs = fits.validate(pd.DataFrame({"N": [1e8, 2e8], "D": [2e9, 4e9], "L": [3.1, 2.9]}))
    >>> runs["kind"].tolist(), runs["excluded"].tolist()
    (['supervised', 'supervised'], ['', ''])
    """
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"runs must be a pandas DataFrame, one row a run, not a {type(frame).__name__}")
    reading = _ReadOptions(mapping or {}, loss_unit, bytes_per_token, decimal, where)
    table = concatenate_parts([reading.renamed(frame)])
    table.attrs.update(frame.attrs)
    return _validated(table, reading)


def _validated(table: pd.DataFrame, reading: _ReadOptions) -> pd.DataFrame:
    before, attributes = list(table.attrs.get(READ_AS, [])), dict(table.attrs)
    table = table.reset_index(drop=True).copy()
    table.attrs.update(attributes)
    if not len(table):
        none = f"none of the {reading.rows} rows fulfils {' and '.join(reading.where)}"
        raise InputError(none if reading.rows else "the table has no rows")
    sources = reading.columns.sources
    headers = {name: source.header for name, source in sources.items() if source.header != name}
    table.attrs[HEADERS] = {**table.attrs.get(HEADERS, {}), **headers}
    table.attrs[STATED] = [*table.attrs.get(STATED, []), *reading.stated()]
    table.attrs[HEADER_SCALES] = {canonical: source.scale for canonical, source in sources.items()}
    mapped = [SYMBOLS.get(canonical, canonical) for canonical, mapped in reading.mapping.items() if mapped]
    table.attrs[MAPPED] = [*table.attrs.get(MAPPED, []), *mapped]
    notes = reading.columns.notes()
    if reading.where:
        notes.append(f"{len(table)} of {reading.rows} rows, where {' and '.join(reading.where)}")
    if reading.columns.set_aside:
        notes.append(f"not used: columns {', '.join(map(repr, sorted(reading.columns.set_aside)))}")
    notes += weight_notes(table)
    remove_units(table, reading.loss_unit)
    table, foreign = _drop_foreign_columns(table)
    notes += foreign
    for column in NUMBERS:
        if column in table:
            scale = sources[column].scale if column in sources else 1.0
            table[column] = to_numbers(table, column, reading.decimal, scale)
    notes += fill_params(table, table.attrs[MAPPED])
    notes += convert_to_nats(table, reading.loss_unit, reading.bytes_per_token)
    if {"compute", "params"} <= set(table.columns):
        notes += _fill_tokens_from_compute(table)
    _refuse_missing(table)
    if "loss" not in table.attrs[MAPPED]:
        refuse_contradictory_losses(table)
    _fill_defaults(table)
    notes += _mark_excluded(table)
    refuse_implausible(table)
    refuse_inconsistent(table)
    table.attrs[READ_AS] = list(dict.fromkeys([*before, *notes]))
    return table


def _drop_foreign_columns(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rename columns that have a canonical name but hold something else; return notes on them."""
    why = {
        column: f"{describe_column(table, column)} holds no numbers"
        for column in OPTIONAL_NUMBERS
        if column in table and not holds_numbers(table, column)
    }
    if "kind" in table and not _names_kinds(table["kind"]):
        why["kind"] = f"{describe_column(table, 'kind')} holds neither {' nor '.join(KINDS)}"
    if "method" in table and _is_foreign_method(table.drop(columns=list(why))):
        why["method"] = (
            f"{describe_column(table, 'method')} names no distillation method, and no row has a teacher"
        )
    if "status" in table and is_foreign_status(table["status"]):
        why["status"] = f"{describe_column(table, 'status')} does not describe how runs ended"
    names = {column: unused_name(table.attrs[HEADERS].get(column, column)) for column in why}
    notes = []
    for column, reason in why.items():
        first = table[column][~is_empty(table[column])].astype(str).head(1).tolist()
        notes.append(f"not used: {reason}" + (f" ({first[0]!r}, ...)" if first else ""))
    return table.rename(columns=names), notes


def _names_kinds(kinds: pd.Series) -> bool:
    """Return True if a column ``kind`` seems to name distillations or supervised runs."""
    values = kinds[~is_empty(kinds)].astype(str).str.strip().str.lower()
    return values.empty or bool(values.str.contains("disti|student|teach|kd|superv").any())


def _is_foreign_method(table: pd.DataFrame) -> bool:
    """Return True if a column ``method`` is not about distillation: no row has a teacher or a kind."""
    others = [c for c in (*TEACHER_COLUMNS, "kind", "teacher_loss_bits") if c in table and c != "method"]
    if any((~is_empty(table[column])).any() for column in others):
        return False
    values = table["method"][~is_empty(table["method"])].astype(str).str.lower()
    canonical = r"disti|kd|kl\b|-kl|divergence|js\b|tvd|taid|minillm|teacher|student|superv"
    return not values.str.contains(canonical).any()


def _fill_tokens_from_compute(table: pd.DataFrame) -> list[str]:
    """Fill missing tokens from the compute of training, with the rule in ``tokens_from``."""
    tokens = table["tokens"] if "tokens" in table else pd.Series(np.nan, index=table.index)
    empty = tokens.isna() & table["compute"].notna()
    cost, rule = training_flops(table)
    notes = check_compute(table, tokens, cost, empty)
    table["tokens"] = tokens.where(~empty, table["compute"] / cost)
    if empty.any():
        table["tokens_from"] = np.where(empty, rule, "")
    return notes


def _refuse_missing(table: pd.DataFrame) -> None:
    missing = [name for name in REQUIRED if name not in table]
    if not missing:
        return
    headers = [table.attrs[HEADERS].get(str(column), str(column)) for column in table.columns]
    converted = missing_loss(headers) if "loss" in missing else ("", "")
    likely = [
        converted[0] if name == "loss" and converted[0] else _likely_header(name, headers) for name in missing
    ]
    hint = "; map another column to it, for example with --map "
    hint += shlex.quote(",".join(map(map_part, missing, likely))) + converted[1]
    hint += " (or C=flops, the compute, for D)" if missing[0] == "tokens" else ""
    raise InputError(f"no column {missing[0]!r}; {list_columns(headers, missing[0])}{hint}")


LIKELY_NAMES = {
    "params": ("non_emb", "nonemb", "params_total", "param", "size"),
    "tokens": ("token",),
    "loss": ("val", "loss", "nll", "entropy"),
}
"""Parts of headers that a missing column may have, the likeliest first."""


def _likely_header(column: str, headers: Sequence[str]) -> str:
    """Return the header that a missing column may have, or an example."""
    there = (h for word in LIKELY_NAMES[column] for h in headers if word in h.lower() and h not in SYNONYMS)
    return next(there, {"params": "size", "tokens": "tokens_seen", "loss": "val_loss"}[column])


def _fill_defaults(table: pd.DataFrame) -> None:
    """Add optional columns in place: names of runs, kinds, seeds, epochs."""
    if "teacher_loss" not in table:
        table["teacher_loss"] = np.nan
    rows = pd.Series([f"row-{i + 1}" for i in table.index], index=table.index)
    named = run_names(table["run"]) if "run" in table else None
    table["run"] = rows if named is None else named.where(named.notna(), rows).astype(str)
    if "teacher" in table:
        table["teacher"] = run_names(table["teacher"])
    table["kind"] = _kinds(table)
    if "seed" not in table:
        table["seed"] = 0
    if "unique_tokens" in table:
        epochs = table["tokens"] / table["unique_tokens"].where(table["unique_tokens"] > 0)
        table["epochs"] = table["epochs"].fillna(epochs) if "epochs" in table else epochs


def _kinds(table: pd.DataFrame) -> pd.Series[str]:
    """Return each row's kind; without a column ``kind``, rows with a teacher are distillations."""
    if "kind" not in table:
        distilled = pd.Series(False, index=table.index)
        for column in TEACHER_COLUMNS:
            if column in table:
                filled = ~is_empty(table[column])
                distilled |= filled & (table[column].astype(str).str.lower() != "supervised")
        return pd.Series(np.where(distilled, "distillation", "supervised"), index=table.index, dtype=object)
    kinds = table["kind"].astype(str).str.strip().str.lower()
    wrong = np.flatnonzero(~kinds.isin(KINDS))
    if len(wrong):
        raise InputError(
            f"row {wrong[0] + 1}, {describe_column(table, 'kind')}: {kinds.iloc[wrong[0]]!r}; it is "
            "'supervised' or 'distillation'. If the column means something else, exclude it with --map kind="
        )
    return kinds.astype(object)


def _mark_excluded(table: pd.DataFrame) -> list[str]:
    """Fill teachers' losses and ``excluded`` in place, and return notes."""
    why = exclusions(table)
    notes: list[str] = []
    if "teacher" in table:
        lost, notes = join_teachers(table, why)
        why = why.where((why != "") | (lost == ""), lost)
    distilled = table["kind"] == "distillation"
    why[(why == "") & distilled & ~np.isfinite(table["teacher_loss"])] = NO_LOSS
    table["excluded"] = why
    refuse_missing_teachers(table, why)
    return notes
