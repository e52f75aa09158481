"""Optuna studies in a database or in a journal: one run for each trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fits.logs.formats.sqlite import open_database
from fits.logs.run_log import RunLog, flatten
from scaling.errors import InputError

FORMAT = "Optuna study"
TABLES = {"studies", "trials", "trial_values", "trial_params"}
"""Tables by which a database is recognized."""
VALUE = "value"
"""Name of the objective's value, which says nothing about its meaning."""
STATES = {
    "COMPLETE": "done",
    "RUNNING": "running",
    "WAITING": "running",
    "PRUNED": "stopped",
    "FAIL": "failed",
}
_STATE_NUMBERS = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")


def read_study_database(path: Path) -> list[RunLog]:
    """Read the trials of all studies: parameters, user attributes, reported values, and the objective.

    The objective is named ``value``, several ``values.0``, ``values.1``; its step is the last one reported.

    Raises:
        InputError: for a database of another layout.
    """
    with open_database(path) as database:
        logs = {
            key: RunLog(f"{study}/{number}", path, FORMAT, status=STATES.get(str(state), ""))
            for key, study, number, state in database.execute(
                "SELECT t.trial_id, s.study_name, t.number, t.state FROM trials t "
                "JOIN studies s USING (study_id) ORDER BY t.trial_id"
            )
        }
        for key, name, value, distribution in database.execute(
            "SELECT trial_id, param_name, param_value, distribution_json FROM trial_params"
        ):
            logs[key].settings[name] = _external(value, _loaded(distribution))
        for key, name, value in database.execute(
            "SELECT trial_id, key, value_json FROM trial_user_attributes"
        ):
            logs[key].settings |= dict(flatten({name: _loaded(value)}))
        reported = "SELECT trial_id, step, intermediate_value FROM trial_intermediate_values ORDER BY step"
        for key, step, value in database.execute(reported):
            logs[key].add(float(step), {"intermediate_value": value})
        found: dict[int, list[float]] = {}
        for key, value in database.execute("SELECT trial_id, value FROM trial_values ORDER BY objective"):
            found.setdefault(key, []).append(value)
        for key, values in found.items():
            _add_values(logs[key], values)
    return list(logs.values())


def is_journal(record: object) -> bool:
    """Return True for a record of a journal."""
    return isinstance(record, dict) and "op_code" in record and "worker_id" in record


def read_study_journal(path: Path) -> list[RunLog]:
    """Read the trials of all studies of a journal; a last line that is cut off is left out.

    Raises:
        InputError: for any other line that is no JSON.
    """
    studies: list[str] = []
    logs: list[RunLog] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for count, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            if count == len(lines):
                break
            raise InputError(f"{path}: line {count} is not JSON") from None
        _replay(record, path, studies, logs)
    return logs


def _replay(record: dict[str, Any], path: Path, studies: list[str], logs: list[RunLog]) -> None:
    """Apply a record of a journal: studies and trials are numbered in the order in which they were made."""
    code = record.get("op_code")
    if code == 0:
        studies.append(str(record["study_name"]))
    elif code == 4:
        study = studies[record["study_id"]]
        count = sum(log.name.startswith(f"{study}/") for log in logs)
        logs.append(RunLog(f"{study}/{count}", path, FORMAT, status="running"))
    elif code in (5, 6, 7, 8) and record["trial_id"] < len(logs):
        log = logs[record["trial_id"]]
        if code == 5:
            distribution = _loaded(record["distribution"])
            log.settings[record["param_name"]] = _external(record["param_value_internal"], distribution)
        elif code == 6:
            log.status = STATES.get(_STATE_NUMBERS[record["state"]], "")
            _add_values(log, record.get("values") or [])
        elif code == 7:
            log.add(float(record["step"]), {"intermediate_value": record["intermediate_value"]})
        else:
            log.settings |= dict(flatten(record["user_attr"]))


def _add_values(log: RunLog, values: list[float]) -> None:
    names = [VALUE] if len(values) == 1 else [f"values.{i}" for i in range(len(values))]
    if values:
        log.final(dict(zip(names, values, strict=True)))


def _external(value: float, distribution: Any) -> object:
    """Return a parameter's value; choices are stored by their place."""
    attributes = distribution.get("attributes", {}) if isinstance(distribution, dict) else {}
    choices = attributes.get("choices")
    return choices[int(value)] if choices else value


def _loaded(text: object) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return None
