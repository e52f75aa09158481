"""CSV files with one row a step, as Lightning, Keras and many scripts write them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fits.logs.formats.json_files import is_step
from fits.logs.run_log import MetricSeries, RunLog
from fits.table.files import read_parts
from scaling.errors import InputError

FORMAT = "CSV with one row a step"


def step_column(headers: list[str]) -> str | None:
    """Return the column of steps, if a table has one."""
    return next((header for header in headers if is_step(header.strip())), None)


def read_csv_history(path: Path, name: str) -> RunLog:
    """Read one series from each column of numbers; empty cells are left out.

    Raises:
        InputError: for an empty file, or a table without a column of steps.
    """
    with path.open("rb") as file:
        if not file.read(64).strip():
            raise InputError(f"{path}: empty: not even a header was written")
    log = RunLog(name, path, FORMAT)
    for part in read_parts(path):
        add_columns(log, part, path)
    return log


def add_columns(log: RunLog, part: pd.DataFrame, path: Path) -> None:
    """Add the columns of a table with steps to a log."""
    found = step_column([str(header) for header in part.columns])
    if found is None:
        raise InputError(f"{path}: no column of steps; the columns are: {', '.join(map(str, part.columns))}")
    steps = pd.to_numeric(part[found], errors="coerce")
    for header in part.columns:
        values = pd.to_numeric(part[header], errors="coerce")
        filled = values.notna() & steps.notna()
        if header == found:
            continue
        if not filled.any():
            texts = part[header].dropna()
            log.settings.setdefault(str(header), texts.iloc[-1]) if len(texts) else None
            continue
        series = log.series.setdefault(str(header), MetricSeries())
        series.steps.extend(steps[filled])
        series.values.extend(values[filled])
