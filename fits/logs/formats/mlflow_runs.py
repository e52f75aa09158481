"""MLflow: runs of a tracking directory (``mlruns``) and of a database."""

from __future__ import annotations

import math
from pathlib import Path

from fits.logs.formats.settings_files import load_yaml
from fits.logs.formats.sqlite import open_database
from fits.logs.run_log import RunLog

FORMAT = "MLflow tracking directory"
DATABASE = "MLflow database"
TABLES = {"runs", "metrics", "params", "experiments"}
"""Tables by which a database is recognized."""
STATES = {
    "FINISHED": "done",
    "RUNNING": "running",
    "FAILED": "failed",
    "KILLED": "failed",
    "SCHEDULED": "running",
}
_STATES_BY_NUMBER = {"1": "running", "2": "running", "3": "done", "4": "failed", "5": "failed"}


def is_mlflow_run(found: object) -> bool:
    """Return True for the content of a run's ``meta.yaml``."""
    return isinstance(found, dict) and "run_id" in found and "artifact_uri" in found


def read_mlflow_run(meta: Path, name: str) -> RunLog | None:
    """Read a run of a tracking directory; None if it was deleted.

    Raises:
        InputError: for a ``meta.yaml`` that is no YAML.
    """
    found = load_yaml(meta)
    if found.get("lifecycle_stage") == "deleted":
        return None
    log = RunLog(str(found.get("run_name") or name), meta, FORMAT)
    log.status = _STATES_BY_NUMBER.get(str(found.get("status")), STATES.get(str(found.get("status")), ""))
    log.settings["mlflow_id"] = str(found["run_id"])
    folder = meta.parent
    for path in sorted((folder / "params").rglob("*")):
        if path.is_file():
            log.settings[_name(path, folder / "params")] = _plain(
                path.read_text(encoding="utf-8", errors="replace")
            )
    for path in sorted((folder / "metrics").rglob("*")):
        if path.is_file():
            _add_metric(log, path, _name(path, folder / "metrics"))
    return log


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _plain(value: str) -> object:
    """Return a parameter as a number where its text is one."""
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


def _add_metric(log: RunLog, path: Path, name: str) -> None:
    """Add the lines ``time value step`` of a metric; a last line that is cut off is left out."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            _, value, step = line.split()[:3]
            log.add(float(step), {name: float(value)})
        except ValueError:
            log.notes.append(f"metric {name} has a line that is cut off, which is left out")


def read_mlflow_database(path: Path) -> list[RunLog]:
    """Read all runs of a database that were not deleted, each named ``experiment/name``.

    Raises:
        InputError: for a database of another layout.
    """
    with open_database(path) as database:
        runs = database.execute(
            "SELECT r.run_uuid, r.name, r.status, e.name FROM runs r "
            "JOIN experiments e USING (experiment_id) "
            "WHERE r.lifecycle_stage = 'active' ORDER BY r.start_time, r.run_uuid"
        ).fetchall()
        logs = {}
        for uid, name, status, experiment in runs:
            log = RunLog(f"{experiment}/{name or uid}", path, DATABASE, status=STATES.get(str(status), ""))
            log.settings = {"mlflow_id": uid, "experiment": experiment}
            logs[uid] = log
        for uid, key, value in database.execute("SELECT run_uuid, key, value FROM params"):
            if uid in logs:
                logs[uid].settings[key] = _plain(value)
        metrics = "SELECT run_uuid, key, value, step, is_nan FROM metrics ORDER BY timestamp, step"
        for uid, key, value, step, is_nan in database.execute(metrics):
            if uid in logs:
                logs[uid].add(float(step), {key: math.nan if is_nan else float(value)})
    return list(logs.values())
