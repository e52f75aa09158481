"""Reading of one file in a named format: the result of one run, as a sweep's own commands leave it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fits.logs.formats.csv_history import read_csv_history
from fits.logs.formats.json_files import read_json_lines
from fits.logs.formats.model_files import read_model
from fits.logs.formats.tensorboard import read_event_files
from fits.logs.formats.text_logs import read_text_log, read_with_pattern, recognize_text
from fits.logs.formats.trainer_state import read_trainer_state
from fits.logs.rows import RowOptions, run_rows
from fits.logs.run_log import RunLog
from scaling.errors import InputError

HOW = ("hf", "jsonl", "csv", "tensorboard", "regex", "log")
"""Formats that :func:`read_run_log` reads by name."""

OWN_FIELDS = ("params", "tokens", "loss", "step", "status", "missing")


@dataclass(frozen=True, slots=True)
class RunResult:
    """Size, tokens and held-out loss of one run; None for what its log does not tell."""

    params: float | None
    """Non-embedding parameters."""
    tokens: float | None
    loss: float | None
    """Held-out loss, nats/token."""
    step: float | None
    status: str
    """"done", "running", "diverged", or empty if the log does not tell."""
    missing: tuple[str, ...]
    """Sentences on what was not found."""
    others: dict[str, object] = field(default_factory=dict)
    """Further columns of the run's row in a table of runs."""
    cut_off: str = ""
    """Sentence on the last record of the log if that is cut off, so that it is not the last of the run."""


def read_run_log(path: str | Path, how: str, pattern: str = "") -> RunLog:
    """Read the log of one run in a named format.

    Args:
        path: A file; for ``tensorboard`` an event file or the directory that holds some; for ``hf`` a
            ``trainer_state.json`` or its directory.
        how: One of :data:`HOW`.
        pattern: Regular expression with named groups, for ``regex``.

    Raises:
        InputError: for a missing file, one in another format, and an unknown ``how``.
    """
    place = Path(path)
    if how not in HOW:
        raise InputError(f"a log is read as one of {', '.join(HOW)}, not {how!r}")
    if not place.exists():
        raise InputError(f"{place}: no such file")
    name = place.stem if place.is_file() else place.name
    if how == "hf":
        return _hugging_face(place, name)
    if how == "tensorboard":
        return read_event_files(_event_files(place), name)
    if not place.is_file():
        raise InputError(f"{place}: a directory, not a file")
    if how == "jsonl":
        return read_json_lines(place, name)
    if how == "csv":
        return read_csv_history(place, name)
    return read_with_pattern(place, name, pattern) if how == "regex" else _tool_log(place, name)


def read_run_result(
    path: str | Path, how: str, pattern: str = "", options: RowOptions | None = None
) -> RunResult:
    """Read the last held-out loss of one run, with its size and tokens.

    Args:
        path: As in :func:`read_run_log`, and so are ``how`` and ``pattern``.
        how: Format.
        pattern: Regular expression, for ``regex``; groups ``loss``, ``tokens`` and ``params`` are taken as
            such.
        options: Names, units, and which evaluation counts; by default the last.

    Raises:
        InputError: as :func:`read_run_log`.
    """
    log = read_run_log(path, how, pattern)
    options = options or RowOptions()
    if how == "regex":
        known = {name: name for name in log.series if name in ("params", "tokens", "loss", "teacher_loss")}
        options = options.with_mapping(known)
    row = run_rows(log, options)[-1]
    return RunResult(
        params=_number(row, "params"), tokens=_number(row, "tokens"), loss=_number(row, "loss"),
        step=_number(row, "step"), status=str(row.get("status") or ""), missing=tuple(row["missing"]),
        others={name: value for name, value in row.items() if name not in OWN_FIELDS}, cut_off=log.cut_off,
    )  # fmt: skip


def _number(row: Mapping[str, object], name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else None


def _hugging_face(place: Path, name: str) -> RunLog:
    path = place / "trainer_state.json" if place.is_dir() else place
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    log = read_trainer_state(path, name)
    if (path.parent / "config.json").is_file():
        settings, notes = read_model(path.parent)
        log.settings = {**settings, **log.settings}
        log.notes += notes
    return log


def _event_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    found = sorted(place.rglob("*tfevents*"))
    if not found:
        raise InputError(f"{place}: no event file of TensorBoard (*tfevents*) in this directory")
    return found


def _tool_log(place: Path, name: str) -> RunLog:
    with place.open(encoding="utf-8", errors="replace") as file:
        tool = recognize_text(file.read(1 << 20))
    if tool is None:
        raise InputError(
            f"{place}: no line of a log of Megatron-LM, torchtitan, nanochat or OLMo-core; give a regular "
            "expression (regex)"
        )
    return read_text_log(place, name, tool)
