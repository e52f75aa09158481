"""JSON of any depth, and JSON lines: a record of metrics a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from fits.logs.metric_names import is_held_out_loss, is_training_loss
from fits.logs.run_log import RunLog, as_number, flatten
from fits.table.columns.column_names import match_header
from scaling.errors import InputError

FORMAT = "JSON lines"
STEPS = ("step", "global_step", "_step", "iteration", "iter", "steps", "training_iteration", "train_step")
"""Names of the step in a record, the first that is there, alone or as the last part of a dotted name."""
MEASURES = (
    *("params", "active_params", "total_params", "tokens", "loss", "loss_se", "teacher_loss"),
    *("teacher_params", "teacher_tokens", "compute", "flops", "epochs", "unique_tokens"),
)
"""Columns of a table of runs that are numbers, also where a record has them as text."""
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
Numbers = dict[str, float]

MAX_JSON_BYTES = 256 << 20


def load_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        InputError: with its name, for one that is cut off or no JSON.
    """
    try:
        with path.open("rb") as file:
            return json.loads(file.read(MAX_JSON_BYTES))
    except RecursionError:
        raise InputError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); is it still being written?") from None


def read_json_lines(path: Path, name: str) -> RunLog:
    """Read records from JSON lines, or from an array of objects; nested names become dotted.

    A last line that is cut off is left out, as in the log of a run that is still written. Records without
    numbers are settings.

    Raises:
        InputError: for any other line that is no JSON.
    """
    log = RunLog(name, path, FORMAT)
    step = 0.0
    for record in _records(path, log):
        steps, numbers, others = split_record(record)
        found = min(steps, key=_rank, default=None)
        if found is None and step == 0.0 and not log.series:
            log.settings |= record
        if found is not None:
            step = steps[found]
            log.settings |= others
        log.add_numbers(step, numbers)
    return log


def split_record(
    record: Mapping[str, object],
) -> tuple[dict[str, float], dict[str, float], dict[str, object]]:
    """Return the steps, the other numbers, and what is no number of a record, by name.

    Steps, losses, sizes and token counts that are written as text, ``"3.21"``, are numbers.
    """
    steps: Numbers = {}
    numbers: Numbers = {}
    others: dict[str, object] = {}
    for name, value in record.items():
        number = as_number(value)
        if number is None and isinstance(value, str) and is_measure(name) and NUMBER.fullmatch(value.strip()):
            number = float(value)
        if number is None:
            others[name] = value
        elif is_step(name):
            steps[name] = number
        else:
            numbers[name] = number
    return steps, numbers, others


def _rank(name: str) -> int:
    """Return the precedence of a name of the step: undotted names come first, in their order."""
    return STEPS.index(name) if name in STEPS else len(STEPS)


@lru_cache(maxsize=4096)
def is_step(name: str) -> bool:
    """Return True for the name of a step."""
    return name.lower().replace("/", ".").rpartition(".")[2] in STEPS


@lru_cache(maxsize=4096)
def is_measure(name: str) -> bool:
    """Return True for the name of a step, a loss, or a number of a table of runs."""
    matched = match_header(name)
    known = matched is not None and matched[0] in MEASURES
    return known or is_step(name) or is_held_out_loss(name) or is_training_loss(name)


def _records(path: Path, log: RunLog) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        start = file.read(64).lstrip()
        file.seek(0)
        if start.startswith("["):
            entries = load_json(path)
            yield from (dict(flatten(entry)) for entry in entries if isinstance(entry, dict))
            return
        pending = ""
        for number, line in enumerate(file, 1):
            if pending:
                raise InputError(f"{path}: {pending}")
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                pending = f"line {number} is not JSON ({error})"
                continue
            if isinstance(found, dict):
                yield dict(flatten(found))
    if pending:
        log.notes.append(f"{path.name}: the last line is cut off and left out")
        log.cut_off = pending


def is_one_object(text: bytes) -> bool:
    """Return True if a file is one JSON object in one line: settings, or a held-out loss without a step."""
    line, _, rest = text.partition(b"\n")
    if rest.strip():
        return False
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, dict):
        return False
    steps, numbers, _ = split_record(dict(flatten(found)))
    if any(map(is_held_out_loss, numbers)):
        return not steps
    return not any(map(is_training_loss, numbers))


def is_json_lines(start: bytes) -> bool:
    """Return True if the first bytes of a file hold a whole line that is a JSON object, or begin an array."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"["):
        return text[1:].lstrip().startswith(b"{")
    line, end, _ = text.partition(b"\n")
    if not text.startswith(b"{") or not end:
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
