"""Exported tables of trackers: W&B's runs table and panels, MLflow's table; one row or column a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from fits.logs.formats.json_files import is_step
from fits.logs.run_log import MetricSeries, RunLog, as_number
from fits.table.columns.cells import run_names
from fits.table.columns.column_names import number_duplicates
from fits.table.files import read_parts

WANDB_TABLE, WANDB_PANEL, MLFLOW_TABLE = "W&B runs table", "W&B panel", "MLflow runs table"
STATES = {
    "finished": "done", "running": "running", "crashed": "failed", "failed": "failed", "killed": "failed",
    "FINISHED": "done", "RUNNING": "running", "FAILED": "failed", "KILLED": "failed",
}  # fmt: skip
_PANEL = re.compile(r"^(?P<run>.+?) - (?P<metric>.+?)(?P<bound>__MIN|__MAX)?$")


def table_kind(headers: list[str]) -> str:
    """Return the kind of an exported table by its header; empty for others."""
    names = set(headers)
    if {"Name", "State"} <= names:
        return WANDB_TABLE
    if {"Run ID", "Status"} <= names or {"run_id", "status", "artifact_uri"} <= names:
        return MLFLOW_TABLE
    others = [header for header in headers[1:] if header]
    if headers and headers[0] in PANEL_AXES and others and all(map(_PANEL.match, others)):
        return WANDB_PANEL
    return ""


PANEL_AXES = (
    "Step",
    "_step",
    "global_step",
    "trainer/global_step",
    "Relative Time (Process)",
    "Relative Time (Wall)",
)
"""Headers of the first column of an exported panel."""


def read_runs_table(path: Path, kind: str) -> list[RunLog]:
    """Read one run from each row: its cells are final values of metrics, and settings.

    Raises:
        InputError: for a file that is no table.
    """
    table = pd.concat(list(read_parts(path)), ignore_index=True)
    table.columns = number_duplicates(list(table.columns))
    name, key = ("Name", "ID") if kind == WANDB_TABLE else ("Name", "Run ID")
    if "run_id" in table:
        name, key = "tags.mlflow.runName", "run_id"
    names = run_names(table[name]) if name in table else pd.Series([None] * len(table))
    logs = []
    for place, row in enumerate(_rows(table)):
        label = names.iloc[place] or row.get(key) or f"row-{place + 1}"
        log = RunLog(str(label), path, kind)
        state = row.get("State") or row.get("Status") or row.get("status")
        log.status = STATES.get(str(state), "")
        log.settings = {column: value for column, value in row.items() if not pd.isna(value)}
        if key in row and not pd.isna(row[key]):
            log.settings["tracker_id"] = str(row[key])
        log.final(_numbers(row))
        logs.append(log)
    return logs


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    headers = list(map(str, table.columns))
    return [dict(zip(headers, cells, strict=True)) for cells in table.itertuples(index=False, name=None)]


def _numbers(row: dict[str, object]) -> dict[str, float]:
    """Return the cells of a row that are numbers, which may be metrics."""
    found = {}
    for column, value in row.items():
        try:
            number = float(value) if isinstance(value, str) else as_number(value)
        except ValueError:
            continue
        if number is not None and not pd.isna(number):
            found[column] = number
    return found


def read_panel(path: Path) -> list[RunLog]:
    """Read one run from each column ``RUN - METRIC`` of a panel; bounds of grouped runs are left out.

    Raises:
        InputError: for a file that is no table.
    """
    table = pd.concat(list(read_parts(path)), ignore_index=True)
    table.columns = number_duplicates(list(table.columns))
    axis = str(table.columns[0])
    steps = pd.to_numeric(table[axis], errors="coerce")
    logs: dict[str, RunLog] = {}
    for header in table.columns[1:]:
        found = _PANEL.match(str(header))
        if found is None or found["bound"] or is_step(found["metric"]):
            continue
        log = logs.setdefault(found["run"], RunLog(found["run"], path, WANDB_PANEL))
        values = pd.to_numeric(table[header], errors="coerce")
        filled = values.notna() & steps.notna()
        log.series[found["metric"]] = MetricSeries()
        log.series[found["metric"]].steps.extend(steps[filled])
        log.series[found["metric"]].values.extend(values[filled])
    return list(logs.values())
