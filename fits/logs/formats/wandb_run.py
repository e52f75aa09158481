"""Weights & Biases: the record file of an offline run, and runs of a project by the API.

Source: wandb's ``wandb_internal.proto``; the framing is that of LevelDB's log
(https://github.com/google/leveldb/blob/main/doc/log_format.md) behind a header of seven bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fits.logs.formats.protobuf import Malformed, fields, number, signed, text
from fits.logs.run_log import RunLog, flatten
from scaling.errors import InputError, MissingExtra

FORMAT = "W&B record file"
HEADER = b":W&B"
"""First bytes of a record file."""
URL = "wandb:"
"""Beginning of a path that names a project for the API: ``wandb:ENTITY/PROJECT``."""
_BLOCK = 32768
_PREFIX = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_HISTORY, _SUMMARY, _CONFIG, _RUN, _EXIT = 2, 3, 5, 17, 18
"""Fields of ``Record``."""
STATES = {
    "finished": "done",
    "running": "running",
    "crashed": "failed",
    "failed": "failed",
    "killed": "failed",
}


def read_wandb_file(path: Path, name: str) -> RunLog:
    """Read configuration, history and state of a run from its record file.

    The run is named by its display name; ``wandb_id`` is its id. A file without the record of its end is
    that of a run that goes on or was killed.

    Raises:
        InputError: for a file in which nothing could be read.
    """
    log = RunLog(name, path, FORMAT, status="running")
    steps = -1.0
    for record in _records(path, log):
        try:
            for key, content in fields(record):
                if isinstance(content, bytes):
                    steps = _add(log, key, content, steps)
        except Malformed:
            log.notes.append(f"{path.name} has a damaged record, which is left out")
    if not log.settings and not log.series:
        raise InputError(f"{path}: a W&B record file without a run; is it still being written?")
    return log


def _add(log: RunLog, key: int, content: bytes, step: float) -> float:
    """Add one record, and return the step of the last record of history."""
    if key == _HISTORY:
        values: dict[str, Any] = {}
        at = None
        for inner, part in fields(content):
            if inner == 1 and isinstance(part, bytes):
                item = _item(part)
                values |= dict(flatten(item))
            elif inner == 2 and isinstance(part, bytes):
                at = next((signed(n) for k, n in fields(part) if k == 1), 0)
        step = float(values.pop("_step", step + 1 if at is None else at))
        log.add(step, {name: value for name, value in values.items() if not name.startswith("_")})
    elif key == _RUN:
        _add_run(log, content)
    elif key == _CONFIG:
        _add_config(log, content)
    elif key == _EXIT:
        code = next((signed(part) for inner, part in fields(content) if inner == 1), 0)
        log.status = "done" if code == 0 else "failed"
    return step


def _add_run(log: RunLog, content: bytes) -> None:
    for inner, part in fields(content):
        if inner == 1:
            log.settings["wandb_id"] = text(part)
        elif inner == 8 and text(part):
            log.settings["wandb_name"] = log.name = text(part)
        elif inner == 4 and isinstance(part, bytes):
            _add_config(log, part)


def _add_config(log: RunLog, content: bytes) -> None:
    for inner, part in fields(content):
        if inner == 1 and isinstance(part, bytes):
            log.settings |= {
                name: value for name, value in flatten(_item(part)) if not name.startswith("_wandb")
            }


def _item(content: bytes) -> dict[str, Any]:
    """Return the name and value of an item of history, configuration or summary."""
    parts: list[str] = []
    value: Any = None
    for key, part in fields(content):
        if key == 1:
            parts = [text(part)]
        elif key == 2:
            parts.append(text(part))
        elif key in (8, 16) and part:
            value = _json(part)
        elif key == 4:
            value = bool(part)
        elif key == 5 and isinstance(part, int):
            value = (part >> 1) ^ -(part & 1)  # zigzag
        elif key == 6:
            value = number(part)
        elif key == 7:
            value = text(part)
    return {".".join(part for part in parts if part): value}


def _json(part: int | bytes) -> Any:
    try:
        return json.loads(text(part))
    except (ValueError, RecursionError):
        return None


def _records(path: Path, log: RunLog) -> Iterator[bytes]:
    """Yield the records of a log of blocks; a record that is cut off ends it."""
    pending = b""
    with path.open("rb") as file:
        block = file.read(_BLOCK)
        place = 7
        while block:
            while place + _PREFIX.size <= len(block):
                _, length, kind = _PREFIX.unpack_from(block, place)
                part = block[place + _PREFIX.size : place + _PREFIX.size + length]
                if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or len(part) < length:
                    log.notes.append(f"{path.name} ends within a record: what comes before is used")
                    return
                place += _PREFIX.size + length
                pending = part if kind in (_FULL, _FIRST) else pending + part
                if kind in (_FULL, _LAST):
                    yield pending
            block, place = file.read(_BLOCK), 0


def read_wandb_project(project: str) -> list[RunLog]:
    """Read the runs of a project by W&B's API, with whole histories.

    Args:
        project: ``ENTITY/PROJECT``.

    Raises:
        MissingExtra: if wandb is not installed.
        InputError: if the API refuses.
    """
    try:
        import wandb
    except ImportError:
        raise MissingExtra(f"{URL}{project} needs wandb: pip install 'distlaw[trackers]'") from None
    try:
        return [_api_run(run) for run in wandb.Api().runs(project)]
    except Exception as error:  # wandb raises many types
        raise InputError(f"{URL}{project}: W&B's API refuses: {error}") from error


def _api_run(run: Any) -> RunLog:
    log = RunLog(run.name, Path(f"{URL}{run.id}"), "W&B API", status=STATES.get(run.state, ""))
    log.settings = {"wandb_id": run.id, "wandb_name": run.name, **dict(flatten(dict(run.config)))}
    for record in run.scan_history():
        values = dict(flatten(record))
        step = float(values.pop("_step", log.last_step + 1))
        log.add(step, {name: value for name, value in values.items() if not name.startswith("_")})
    return log
