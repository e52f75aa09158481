"""Ray Tune: the directory of a trial, with ``result.json`` (a record a line) and ``params.json``."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from fits.logs.formats.json_files import load_json, read_json_lines
from fits.logs.run_log import RunLog, flatten
from scaling.errors import InputError

FORMAT = "Ray Tune trial"
STATES = {
    "TERMINATED": "done",
    "ERROR": "failed",
    "RUNNING": "running",
    "PENDING": "running",
    "PAUSED": "running",
}


def is_result(record: object) -> bool:
    """Return True for a record of a trial's ``result.json``."""
    return isinstance(record, dict) and "trial_id" in record and "training_iteration" in record


def read_trial(path: Path, name: str) -> RunLog:
    """Read what a trial reported, and its parameters under ``config``.

    Raises:
        InputError: for a damaged ``result.json`` or ``params.json``.
    """
    log = read_json_lines(path, name)
    log.format = FORMAT
    log.status = "done" if log.settings.get("done") is True else _status(path.parent)
    params = path.parent / "params.json"
    if params.is_file():
        log.settings |= {f"config.{key}": value for key, value in flatten(load_json(params))}
    return log


def _status(trial: Path) -> str:
    """Return how a trial ended by the newest state of its experiment; empty if that does not tell.

    Functions that report leave no record with ``done`` when they return.
    """
    for path in sorted(trial.parent.glob("experiment_state-*.json"), reverse=True):
        states = _states(path, path.stat().st_mtime_ns)
        found = next((state for key, state in states.items() if key in trial.name), None)
        if found is not None:
            return STATES.get(found, "")
    return ""


@lru_cache(maxsize=4)
def _states(path: Path, _: int) -> dict[str, str]:
    """Return the state of each trial, by id, of an experiment whose file was written at some time."""
    try:
        trials = [json.loads(entry) for entry, *_ in load_json(path)["trial_data"]]
        return {str(trial["trial_id"]): str(trial["status"]) for trial in trials}
    except (InputError, ValueError, KeyError, TypeError):
        return {}
