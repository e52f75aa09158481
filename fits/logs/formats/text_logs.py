"""Logs in plain text: Megatron-LM, torchtitan, nanochat, OLMo-core, or any with a regular expression.

Sources of the formats: the ``print`` and ``logger.info`` calls of Megatron-LM's ``training.py``, torchtitan's
``metrics.py``, nanochat's ``base_train.py`` and OLMo-core's ``ConsoleLoggerCallback``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fits.logs.run_log import RunLog
from scaling.errors import InputError
from scaling.units import parse_quantity

ANSI = re.compile(r"\x1b\[[0-9;]*m")
NUMBER = r"[-+]?(?:\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?|nan|inf)"
LONGEST_LINE = 20_000
"""Characters of a line that are searched; progress bars make lines without end."""

PLANNED = ("train_iters", "num_iterations", "max_steps", "total steps")
"""Names of the number of steps that a run was to make."""

Line = tuple[float | None, dict[str, float]]
"""Step (None for that of the line before) and numbers of one line."""


@dataclass(frozen=True, slots=True)
class TextFormat:
    """One tool's log."""

    name: str
    looked_for: str
    """Text by which it is recognized, for messages."""
    is_line: re.Pattern[str]
    """Match of a line that only this tool writes."""
    parse: Callable[[str], Line | None]
    settings: tuple[re.Pattern[str], ...] = ()
    """Matches of settings: the groups ``value`` and ``name``, which may stand in either order."""


_MEGATRON_STEP = re.compile(r"\biteration\s+(\d+)\s*/\s*(\d+)\s*\|(.*)")
_MEGATRON_EVAL = re.compile(r"\b(validation|test) loss at iteration (\d+)([^|]*)\|(.*)")
_PAIR = re.compile(rf"\s*([^|:]+?):\s*({NUMBER})\s*(?=\|)", re.IGNORECASE)


def _megatron(line: str) -> Line | None:
    if found := _MEGATRON_STEP.search(line):
        values = {name: _float(value) for name, value in _PAIR.findall(found[3] + "|")}
        return float(found[1]), {**values, "train_iters": float(found[2])}
    if found := _MEGATRON_EVAL.search(line):
        split = "test" if found[1] == "test" or "test set" in found[3] else "validation"
        values = {name: _float(value) for name, value in _PAIR.findall(found[4] + "|")}
        return float(found[2]), {f"{split} {name.removesuffix(' value')}": v for name, v in values.items()}
    return None


_TITAN = re.compile(
    rf"(?P<validate>validate )?\bstep:\s*(\d+)\s+loss:\s*({NUMBER})(?:\s+grad_norm:\s*({NUMBER}))?"
)


def _torchtitan(line: str) -> Line | None:
    found = _TITAN.search(line)
    if found is None:
        return None
    name = "validation_metrics/loss" if found["validate"] else "loss_metrics/global_avg_loss"
    return float(found[2]), {name: _float(found[3])}


_NANO_STEP = re.compile(rf"^step (\d+)(?:/(\d+))?.*?\| loss: ({NUMBER}).*?\| lrm: ({NUMBER})")
_NANO_EVAL = re.compile(rf"^Step (\d+) \| Validation (bpb|loss): ({NUMBER})")


def _nanochat(line: str) -> Line | None:
    if found := _NANO_EVAL.search(line):
        return float(found[1]), {f"val_{found[2]}": _float(found[3])}
    if found := _NANO_STEP.search(line):
        planned = {"num_iterations": float(found[2])} if found[2] else {}
        return float(found[1]), {"train_loss": _float(found[3]), "lrm": _float(found[4]), **planned}
    return None


_OLMO_STEP = re.compile(r"\[step=([\d,]+)(?:/([\d,]+))?")
_OLMO_METRIC = re.compile(
    rf"((?:train|eval|optim|throughput|data)/[^=]*?)=({NUMBER})(?:\s?([KMBT]))?\s*$", re.IGNORECASE
)


def _olmo_core(line: str) -> Line | None:
    step = _OLMO_STEP.search(line)
    planned = {"max_steps": _float(step[2])} if step and step[2] else {}
    metric = _OLMO_METRIC.search(line)
    if metric:
        value = (
            parse_quantity(metric[2].replace(",", "") + metric[3], "a metric")
            if metric[3]
            else _float(metric[2])
        )
        planned[metric[1].strip()] = value
    return (_float(step[1]) if step else None, planned) if step or metric else None


FORMATS = (
    TextFormat(
        "Megatron-LM log", "'iteration 100/ 500 | ... | lm loss: ...'",
        re.compile(r"\biteration\s+\d+\s*/\s*\d+\s*\|.*\bloss:|(?:validation|test) loss at iteration \d+"),
        _megatron,
        (
            re.compile(r"^\s{2}(?P<name>\w+) \.{3,} (?P<value>.*)$"),
            re.compile(r"> (?P<name>number of parameters on .*rank \([\d, ]+\)): (?P<value>\d+)"),
        ),
    ),
    TextFormat(
        "torchtitan log", "'step: 10  loss: 7.8  ...'",
        re.compile(rf"\bstep:\s*\d+\s+loss:\s*{NUMBER}"), _torchtitan,
        (
            re.compile(r"(?P<name>global batch size|sequence length|total steps) (?P<value>\d+)"),
            re.compile(r"(?P<value>[\d,]+) (?P<name>total parameters)"),
        ),
    ),
    TextFormat(
        "nanochat log", "'Step 00250 | Validation bpb: ...'",
        re.compile(r"^Step \d+ \| Validation (?:bpb|loss):|^step \d+(?:/\d+)? .*\| loss: .*\| lrm:"),
        _nanochat,
        (
            re.compile(r"^(?P<name>[A-Za-z_][\w ]*?)\s*: (?P<value>[\d,.e+]+)\s*$"),
            re.compile(r"^(?P<name>Total batch size) (?P<value>[\d,]+)"),
        ),
    ),
    TextFormat(
        "OLMo-core log", "'[step=100/2000, ...' and 'train/CE loss=...'",
        re.compile(r"\[step=[\d,]+(?:/[\d,]+)?.*epoch="), _olmo_core,
    ),
)  # fmt: skip


def recognize_text(start: str) -> TextFormat | None:
    """Return the format whose lines a text has; None if no tool's."""
    lines = [ANSI.sub("", line[:LONGEST_LINE]) for line in start.splitlines()]
    return next((each for each in FORMATS if any(each.is_line.search(line) for line in lines)), None)


def read_text_log(path: Path, name: str, tool: TextFormat) -> RunLog:
    """Read the metrics of a tool's log line by line."""
    log = RunLog(name, path, tool.name)
    step = 0.0
    for line in _lines(path):
        found = tool.parse(line)
        if found is not None:
            step = step if found[0] is None else found[0]
            log.add(step, found[1])
        else:
            _add_settings(log, tool, line)
    _finish(log)
    return log


def read_with_pattern(path: Path, name: str, pattern: str) -> RunLog:
    """Read the named groups of a regular expression, searched in each line.

    Args:
        path: Text file.
        name: Name of the run.
        pattern: Regular expression with named groups: ``step (?P<step>\\d+) val (?P<loss>[\\d.]+)``. A group
            ``step`` is optional.

    Raises:
        InputError: for an expression that is not valid or names nothing, or matches no line.
    """
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise InputError(f"regular expression {pattern!r}: {error}") from None
    if not wanted.groupindex:
        raise InputError(
            f"regular expression {pattern!r} names nothing; give names to groups: (?P<loss>[\\d.]+)"
        )
    log = RunLog(name, path, "text, by a regular expression")
    step, matched = 0.0, False
    for line in _lines(path):
        for found in wanted.finditer(line):
            matched = True
            values = {key: _float(value) for key, value in found.groupdict().items() if value is not None}
            step = values.pop("step", step)
            log.add(step, values)
    if not matched:
        raise InputError(f"{path}: no line matches the regular expression {pattern!r}")
    return log


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace", newline=None) as file:
        for line in file:
            yield ANSI.sub("", line.rstrip("\n"))[:LONGEST_LINE]


def _add_settings(log: RunLog, tool: TextFormat, line: str) -> None:
    for pattern in tool.settings:
        for found in pattern.finditer(line):
            log.settings.setdefault(found["name"].strip(), _setting(found["value"].strip()))


def _add_ranks(log: RunLog) -> None:
    """Add up the parameters on the ranks of Megatron-LM, if the log has all of them."""
    counts = [v for name, v in log.settings.items() if name.startswith("number of parameters on ")]
    sizes = (log.settings.get(f"{kind}_model_parallel_size", 1) for kind in ("tensor", "pipeline"))
    if counts and len(counts) == math.prod(sizes):
        log.settings["number of parameters"] = sum(counts)


def _finish(log: RunLog) -> None:
    """Add up ranks, and find out if a log ends before the last planned step."""
    _add_ranks(log)
    planned = [log.series.pop(key).values[-1] for key in PLANNED if key in log.series]
    planned += [float(log.settings[key]) for key in PLANNED if isinstance(log.settings.get(key), float)]
    if planned:
        log.settings["max_steps"] = planned[0]
        log.status = "done" if log.last_step >= planned[0] - 1 else "running"  # some tools count from 0


def _setting(value: str) -> object:
    try:
        return float(value.replace(",", "")) if re.fullmatch(NUMBER, value) else value
    except ValueError:
        return value


def _float(value: str) -> float:
    try:
        return float(value.replace(",", ""))
    except ValueError:
        raise InputError(f"{value!r} is not a number") from None
