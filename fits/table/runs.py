"""The runs table: one tidy row a run, read from anyone's file and checked at the door.

Nothing is dropped silently. A row that cannot be used keeps its place and says why in the column
``excluded`` (empty for rows that are used); a table that cannot be trusted at all is an InputError that
names the file, the column and the row. Rows are counted from 1, the header not included. Headers that were
understood as something else than they are called are listed in ``table.attrs["read_as"]``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from fits.table.cells import DECIMALS, HEADERS, absent, column_called, identities, inferred, numbers, readable
from fits.table.column_names import SYMBOLS, SYNONYMS, Columns, columns_of, distinct, listed, map_part, unused
from fits.table.files import DAMAGED, parts_of
from fits.table.flops import training_flops
from fits.table.loss_units import (
    MAPPED,
    checked_unit,
    in_nats,
    missing_loss,
    refuse_contradicting,
    refuse_named_otherwise,
)
from fits.table.plausibility import HEADER_SCALES, STATED, check_compute, means_other, refuse_implausible
from fits.table.subsample import READ_AS, gathered
from fits.table.teacher_join import NO_LOSS, join_teachers, refuse_lost
from fits.table.validation import exclusions, foreign_status, refuse_inconsistent
from scaling.errors import InputError

REQUIRED = ("params", "tokens", "loss")
IF_READABLE = (
    *("bits_per_byte", "teacher_tokens", "epochs", "unique_tokens", "flops", "seconds", "compute"),
)
"""Columns of numbers that are set aside where they hold none: they are called as ours by chance."""
NUMBERS = (
    *("params", "tokens", "loss", "loss_se", "teacher_params", "teacher_loss"),
    *("loss_bits", "teacher_loss_bits", *IF_READABLE),
)
KINDS = ("supervised", "distillation")
OF_TEACHERS = ("teacher", "teacher_params", "teacher_tokens", "teacher_loss", "method")
"""Columns that only distillations fill."""
_AS_TEXT = frozenset(
    (*NUMBERS, "run", "teacher", "kind", "method", "status", "corpus", "tokenizer", "setting")
)


@dataclass(slots=True)
class _Reading:
    """How a table is to be read, and what was found out on the way."""

    mapping: Mapping[str, str | None] = field(default_factory=dict)
    loss_unit: str | None = None
    bytes_per_token: float | None = None
    decimal: str = "."
    columns: Columns = field(default_factory=Columns)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loss_unit = checked_unit(self.loss_unit, self.bytes_per_token)
        if self.decimal not in DECIMALS:
            raise InputError(f"the decimal mark is '.' or ',', not {self.decimal!r}")

    def renamed(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A part of the table with its columns under our names."""
        headers = distinct(list(frame.columns))
        frame = frame.set_axis(headers, axis=1)
        other = [symbol for symbol in SYMBOLS if symbol in frame and means_other(symbol, frame[symbol])]
        columns = columns_of(headers, self.mapping, self.loss_unit, other)
        refuse_named_otherwise(columns.sources, self.loss_unit)
        self.columns.sources.update(columns.sources)
        self.columns.set_aside |= columns.set_aside
        return frame.set_axis(columns.new_names(headers), axis=1)

    def stated(self) -> list[str]:
        """Columns of ours whose unit the user has said."""
        units = [ours for ours, source in self.columns.sources.items() if source.stated]
        absent = [ours for ours, theirs in self.mapping.items() if not theirs]
        return [*units, *absent, *(["loss", "teacher_loss"] if self.loss_unit else [])]


def read_runs(
    path: str | Path | BinaryIO | pd.DataFrame,
    mapping: Mapping[str, str | None] | None = None,
    *,
    loss_unit: str | None = None,
    bytes_per_token: float | None = None,
    decimal: str = ".",
) -> pd.DataFrame:
    """Read a runs table from CSV, TSV, JSON, JSON lines or Parquet, and validate it.

    Args:
        path: The file, compressed (gz, bz2, xz, zst) or not; "-" for standard input; an open binary file; or
            a data frame, which is read as a file of the same content is.
        mapping: The file's column for one of ours, which is given by name or symbol: ``{"N": "Model Size",
            "C": "Training FLOP"}``. A factor states a unit (``{"D": "tokens*1e9"}``); an empty name says that
            a column of ours is not there (``{"method": ""}``). Without it, the names in
            :data:`fits.table.column_names.SYNONYMS` are understood, the papers' symbols, and exported W&B
            tables.
        loss_unit: "nats/token" (the default), "bits/token", "bits/byte" or "perplexity".
        bytes_per_token: Mean bytes of a token of the held-out text, which converts losses in bits/byte.
        decimal: "." or "," in the cells.

    A column ``compute`` (C, in FLOPs, of this model's training alone) stands in for missing tokens:
    D = C/(6N), or C/(3F) with the FLOPs F of a forward pass where the table gives ``vocab`` and ``context``;
    ``tokens_from`` then says so. Of more than a million rows neighbouring checkpoints are thinned
    (:mod:`fits.table.subsample`).

    Raises:
        InputError: for a file that cannot be read, and for anything :func:`validate` refuses.
    """
    if isinstance(path, pd.DataFrame):
        return validate(path, mapping, loss_unit=loss_unit, bytes_per_token=bytes_per_token, decimal=decimal)
    name = (
        "standard input" if str(path) == "-" else str(path) if isinstance(path, str | Path) else "the table"
    )
    reading = _Reading(mapping or {}, loss_unit, bytes_per_token, decimal)
    try:
        table = gathered(reading.renamed(part) for part in parts_of(path))
        return _validated(inferred(table, _AS_TEXT), reading)
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
) -> pd.DataFrame:
    """The table in the one form that everything else expects; extra columns are kept.

    Adds ``run``, ``kind``, ``teacher_loss``, ``seed`` and ``excluded`` where they are missing; a teacher's
    loss may also come from the run that the column ``teacher`` names. Arguments as of :func:`read_runs`.

    Raises InputError for a missing column, a value that is no number, an impossible size or unit, a run that
    contradicts itself, or losses that cannot be compared (other texts, tokenizers, units).
    """
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"runs are a pandas DataFrame, one row a run, not a {type(frame).__name__}")
    reading = _Reading(mapping or {}, loss_unit, bytes_per_token, decimal)
    table = gathered([reading.renamed(frame)])
    table.attrs.update(frame.attrs)
    return _validated(table, reading)


def _validated(table: pd.DataFrame, reading: _Reading) -> pd.DataFrame:
    before, attributes = list(table.attrs.get(READ_AS, [])), dict(table.attrs)
    table = table.reset_index(drop=True).copy()
    table.attrs.update(attributes)
    if not len(table):
        raise InputError("the table has no rows")
    sources = reading.columns.sources
    headers = {ours: source.header for ours, source in sources.items() if source.header != ours}
    table.attrs[HEADERS] = {**table.attrs.get(HEADERS, {}), **headers}
    table.attrs[STATED] = [*table.attrs.get(STATED, []), *reading.stated()]
    scales = {ours: source.scale for ours, source in sources.items()}
    table.attrs[HEADER_SCALES] = scales
    mapped = [SYMBOLS.get(ours, ours) for ours, theirs in reading.mapping.items() if theirs]
    table.attrs[MAPPED] = [*table.attrs.get(MAPPED, []), *mapped]
    notes = reading.columns.notes()
    if reading.columns.set_aside:
        notes.append(f"not used: columns {', '.join(map(repr, sorted(reading.columns.set_aside)))}")
    table, foreign = _without_foreign(table)
    notes += foreign
    for column in NUMBERS:
        if column in table:
            table[column] = numbers(
                table, column, reading.decimal, sources[column].scale if column in sources else 1.0
            )
    notes += in_nats(table, reading.loss_unit, reading.bytes_per_token)
    if {"compute", "params"} <= set(table.columns):
        notes += _from_compute(table)
    _refuse_missing(table)
    if "loss" not in table.attrs[MAPPED]:
        refuse_contradicting(table)
    _complete(table)
    notes += _with_teachers(table)
    refuse_implausible(table)
    refuse_inconsistent(table)
    table.attrs[READ_AS] = list(dict.fromkeys([*before, *notes]))
    return table


def _without_foreign(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table without columns that are called as ours but hold something else, and notes that say so."""
    why = {
        column: f"{column_called(table, column)} holds no numbers"
        for column in IF_READABLE
        if column in table and not readable(table, column)
    }
    if "kind" in table and not _says_kinds(table["kind"]):
        why["kind"] = f"{column_called(table, 'kind')} holds neither of {' and '.join(KINDS)}"
    if "method" in table and _is_foreign_method(table.drop(columns=list(why))):
        why["method"] = f"{column_called(table, 'method')} names no distillation, and no row a teacher"
    if "status" in table and foreign_status(table["status"]):
        why["status"] = f"{column_called(table, 'status')} does not say which runs finished"
    names = {column: unused(table.attrs[HEADERS].get(column, column)) for column in why}
    notes = []
    for column, reason in why.items():
        first = table[column][~absent(table[column])].astype(str).head(1).tolist()
        notes.append(f"not used: {reason}" + (f" ({first[0]!r}, ...)" if first else ""))
    return table.rename(columns=names), notes


def _says_kinds(kinds: pd.Series) -> bool:
    """Whether a column ``kind`` tells distillations from supervised runs, or may try to."""
    said = kinds[~absent(kinds)].astype(str).str.strip().str.lower()
    return said.empty or bool(said.str.contains("disti|student|teach|kd|superv").any())


def _is_foreign_method(table: pd.DataFrame) -> bool:
    """Whether a column ``method`` is of something else than distillation: no row has a teacher or a kind."""
    others = [c for c in (*OF_TEACHERS, "kind", "teacher_loss_bits") if c in table and c != "method"]
    if any((~absent(table[column])).any() for column in others):
        return False
    said = table["method"][~absent(table["method"])].astype(str).str.lower()
    ours = r"disti|kd|kl\b|-kl|divergence|js\b|tvd|taid|minillm|teacher|student|superv"
    return not said.str.contains(ours).any()


def _from_compute(table: pd.DataFrame) -> list[str]:
    """Fill missing tokens from the compute of training, and say in ``tokens_from`` where and how."""
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
    likely = [converted[0] if name == "loss" and converted[0] else _likely(name, headers) for name in missing]
    said = "; say which of yours it is with --map, for example --map "
    said += shlex.quote(",".join(map(map_part, missing, likely))) + converted[1]
    said += " (or C=flops, the compute, for D)" if missing[0] == "tokens" else ""
    raise InputError(f"no column {missing[0]!r}; {listed(headers, missing[0])}{said}")


LIKELY = {
    "params": ("non_emb", "nonemb", "params_total", "param", "size"),
    "tokens": ("token",),
    "loss": ("val", "loss", "nll", "entropy"),
}
"""Parts of the headers that a missing column may be, the likeliest first."""


def _likely(column: str, headers: Sequence[str]) -> str:
    """The header that a missing column probably is, or an example."""
    there = (h for word in LIKELY[column] for h in headers if word in h.lower() and h not in SYNONYMS)
    return next(there, {"params": "size", "tokens": "tokens_seen", "loss": "val_loss"}[column])


def _complete(table: pd.DataFrame) -> None:
    """Add in place what a table may leave out: names of runs, kinds, seeds, epochs."""
    if "teacher_loss" not in table:
        table["teacher_loss"] = np.nan
    rows = pd.Series([f"row-{i + 1}" for i in table.index], index=table.index)
    named = identities(table["run"]) if "run" in table else None
    table["run"] = rows if named is None else named.where(named.notna(), rows).astype(str)
    if "teacher" in table:
        table["teacher"] = identities(table["teacher"])
    table["kind"] = _kinds(table)
    if "seed" not in table:
        table["seed"] = 0
    if "unique_tokens" in table:
        epochs = table["tokens"] / table["unique_tokens"].where(table["unique_tokens"] > 0)
        table["epochs"] = table["epochs"].fillna(epochs) if "epochs" in table else epochs


def _kinds(table: pd.DataFrame) -> pd.Series[str]:
    """Each row's kind; where the table does not say, whatever fills a teacher's column is a distillation."""
    if "kind" not in table:
        told = pd.Series(False, index=table.index)
        for column in OF_TEACHERS:
            if column in table:
                filled = ~absent(table[column])
                told |= filled & (table[column].astype(str).str.lower() != "supervised")
        return pd.Series(np.where(told, "distillation", "supervised"), index=table.index, dtype=object)
    kinds = table["kind"].astype(str).str.strip().str.lower()
    wrong = np.flatnonzero(~kinds.isin(KINDS))
    if len(wrong):
        raise InputError(
            f"row {wrong[0] + 1}, {column_called(table, 'kind')}: {kinds.iloc[wrong[0]]!r}; it is "
            "'supervised' or 'distillation'. If the column means something else, --map kind= leaves it out"
        )
    return kinds.astype(object)


def _with_teachers(table: pd.DataFrame) -> list[str]:
    """Fill teachers' losses and ``excluded`` in place; notes on what was done."""
    why = exclusions(table)
    notes: list[str] = []
    if "teacher" in table:
        lost, notes = join_teachers(table, why)
        why = why.where((why != "") | (lost == ""), lost)
    distilled = table["kind"] == "distillation"
    why[(why == "") & distilled & ~np.isfinite(table["teacher_loss"])] = NO_LOSS
    table["excluded"] = why
    refuse_lost(table, why)
    return notes
