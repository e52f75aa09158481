"""Results of a command from the log that its trainer leaves, where it writes no ``result.json``."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fits.table.column_names import match_header
from scaling.errors import InputError
from sweeps.external.result import ReportedResult, parse_result, read_result
from sweeps.spec.trainer import COLLECTED, RESULT_FILE, Collect, Trainer

Record = dict[str, float]
"""Numbers of one line of a log, by their names there."""
HF_TOKENS = "num_input_tokens_seen"
MAX_LINE = 1_000_000
"""Characters of the longest line that is read."""


def collect_result(trainer: Trainer, values: Mapping[str, str], output: Path) -> tuple[ReportedResult, str]:
    """Read what a command has left; return it, and the name of its file for messages.

    Args:
        trainer: The trainer.
        values: Values of the placeholders.
        output: File with the command's output.

    Raises:
        InputError: if it has left nothing, or something else than a result.
    """
    if trainer.collect is None:
        path = Path(RESULT_FILE.format_map(values))
        if trainer.model and not path.exists():
            return ReportedResult(), str(path)
        return read_result(path), str(path)
    how = trainer.collect
    path = output if how.regex else Path(getattr(how, how.form).format_map(values))
    try:
        records = list(_records(how, path))
    except FileNotFoundError:
        raise InputError(f"collect.{how.form}: {path} is not there after the command exited with 0") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"collect.{how.form}: {path} cannot be read ({error})") from None
    found = _chosen(how, records, f"collect.{how.form}: {path}", needs_loss=not trainer.model)
    return parse_result(found, f"collect.{how.form}: {path}"), str(path)


def _records(how: Collect, path: Path) -> Iterator[Record]:
    if how.regex:
        return _matches(re.compile(how.regex), path)
    readers = {"hf": _trainer_state, "jsonl": _json_lines, "csv": _csv_rows, "tensorboard": _scalars}
    return readers[how.form](path)


def _matches(pattern: re.Pattern[str], path: Path) -> Iterator[Record]:
    """Yield the groups of every line of the output in which ``pattern`` is found."""
    with path.open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(MAX_LINE):
            if match := pattern.search(line):
                yield {name: _number(text) for name, text in match.groupdict().items() if text is not None}


def _number(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return math.nan


def _trainer_state(path: Path) -> Iterator[Record]:
    """Yield the records of ``log_history``; the Trainer calls training losses ``loss`` and others eval_..."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        history = state["log_history"]
        seen = float(state.get(HF_TOKENS) or 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"collect.hf: {path}: not a trainer_state.json ({error!r})") from None
    for record in history:
        yield {name: value for name, value in _numbers(record) if name != "loss"}
    if seen:
        yield {"tokens": seen}


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as file:
        while line := file.readline(MAX_LINE):
            try:
                yield dict(_numbers(json.loads(line)))
            except (ValueError, RecursionError):
                continue  # a line that is still being written, or words between the records


def _csv_rows(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            yield {name: _number(text) for name, text in row.items() if name and text}


def _scalars(path: Path) -> Iterator[Record]:
    raise InputError(f"collect.tensorboard: {path}: event files are not read yet; write result.json instead")


def _numbers(record: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record under dotted names."""
    for name, value in record.items() if isinstance(record, dict) else ():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


def _chosen(how: Collect, records: list[Record], where: str, *, needs_loss: bool) -> dict[str, Any]:
    """Return the fields of a result from the records of a log."""
    names = _names_of(how, {name: None for record in records for name in record}, where)
    if "loss" not in names:
        if not needs_loss:
            return {}
        seen = ", ".join(list({name: None for record in records for name in record})[:20]) or "no numbers"
        raise InputError(f"{where}: no held-out loss; found {seen}; name it: map: {{loss: NAME}}")
    with_loss = [number for number, record in enumerate(records) if names["loss"] in record]
    losses = [records[number][names["loss"]] for number in with_loss]
    if bad := next((loss for loss in losses[-1:] if not math.isfinite(loss)), None):
        raise InputError(f"{where}: the last {names['loss']} is {bad}, not a finite number")
    finite = [pair for pair in zip(losses, with_loss, strict=True) if math.isfinite(pair[0])]
    place = with_loss[-1] if how.take == "last" else min(finite)[1]
    found: dict[str, Any] = {}
    for column, name in names.items():
        # a number that the record of the loss lacks stands in one before it, or in the last of all
        before = [record[name] for record in records[: place + 1] if name in record]
        after = [record[name] for record in records[place:] if name in record]
        if before or after:
            found[column] = before[-1] if before else after[-1]
    if how.loss_unit == "bits":
        found |= {name: found[name] * math.log(2) for name in ("loss", "loss_se") if name in found}
    return found | {"loss_on": how.loss_on or f"{names['loss']}, {REPORTED_BY_LOG}"}


REPORTED_BY_LOG = "as its trainer logged it"


def _names_of(how: Collect, found: Iterable[str], where: str) -> dict[str, str]:
    """Return the names in the log of the columns of a result: as mapped, else as tables are understood."""
    there = list(found)
    names: dict[str, str] = {}
    for column, name in how.map.items():
        if name not in there:
            raise InputError(
                f"{where}: no {name} for {column}; found {', '.join(there[:20]) or 'no numbers'}"
            )
        names[column] = name
    for column in COLLECTED:
        if column in names:
            continue
        like = [name for name in there if _canonical(name) == column]
        if column == "loss" and len(like) > 1:
            like = [name for name in like if name != "loss"]
        if len(like) > 1:
            raise InputError(
                f"{where}: {' and '.join(like)} may both be {column}; name one: map: {{{column}: NAME}}"
            )
        if like:
            names[column] = like[0]
    return names


def _canonical(name: str) -> str | None:
    if name == HF_TOKENS:
        return "tokens"
    found = match_header(name)
    return {"compute": "flops"}.get(found[0], found[0]) if found else None
