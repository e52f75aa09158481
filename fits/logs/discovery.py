"""Discovery of logs in directories: every file is recognized by its content, whatever it is called."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from fits.logs.formats.csv_history import step_column
from fits.logs.formats.exported_tables import table_kind
from fits.logs.formats.json_files import is_json_lines, is_one_object
from fits.logs.formats.lm_eval import is_lm_eval
from fits.logs.formats.mlflow_runs import TABLES as MLFLOW_TABLES
from fits.logs.formats.mlflow_runs import is_mlflow_run
from fits.logs.formats.model_files import is_model_config
from fits.logs.formats.optuna_study import TABLES as OPTUNA_TABLES
from fits.logs.formats.optuna_study import is_journal
from fits.logs.formats.ray_tune import is_result
from fits.logs.formats.settings_files import YAML_SUFFIXES, load_yaml
from fits.logs.formats.sqlite import MAGIC as SQLITE_MAGIC
from fits.logs.formats.sqlite import table_names
from fits.logs.formats.tensorboard import is_event_file
from fits.logs.formats.text_logs import TextFormat, recognize_text
from fits.logs.formats.trainer_state import is_trainer_state
from fits.logs.formats.wandb_run import HEADER as WANDB_HEADER
from fits.logs.metric_names import is_held_out_loss
from fits.logs.run_log import as_number
from scaling.errors import InputError

STEP_IN_NAME = re.compile(r"step[_-]?(\d+)$")
"""Step at the end of a file's name."""
START_BYTES = 1 << 16
"""Bytes at the start of a file by which it is recognized."""
MAX_WHOLE_JSON = 64 << 20
"""Largest JSON file that is loaded to be recognized."""
SKIPPED_FOLDERS = {".git", "__pycache__", ".venv", "node_modules", ".ipynb_checkpoints"}
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".pkl", ".npz", ".npy", ".distcp", ".gguf", ".zip", ".png")
"""Suffixes of files that are never opened to be recognized."""


class LogKind(Enum):
    """Kind of a file, by its content."""

    TRAINER_STATE = "Hugging Face trainer_state.json"
    EVENTS = "TensorBoard event file"
    WANDB = "W&B record file"
    MLFLOW_RUN = "MLflow run"
    MLFLOW_DATABASE = "MLflow database"
    OPTUNA_DATABASE = "Optuna database"
    OPTUNA_JOURNAL = "Optuna journal"
    TUNE = "Ray Tune trial"
    JSON_LINES = "JSON lines"
    CSV_HISTORY = "CSV with one row a step"
    RUNS_TABLE = "exported table of runs"
    PANEL = "exported W&B panel"
    TEXT = "text log"
    CHECKPOINT_META = "checkpoint metadata with its step"
    RESULT = "JSON object with a held-out loss"
    MODEL = "model configuration"
    LM_EVAL = "lm-evaluation-harness results"
    SETTINGS = "settings"


@dataclass(frozen=True, slots=True)
class FoundLog:
    """File that was recognized."""

    path: Path
    kind: LogKind
    tool: TextFormat | None = None
    """Format of a text log."""
    table: str = ""
    """Kind of an exported table."""


LOOKED_FOR = (
    "trainer_state.json (an object with log_history and global_step), TensorBoard event files, JSON lines "
    "with a step, CSV with a column step, W&B record files (:W&B), exported W&B and MLflow tables and "
    "panels, MLflow directories and databases, Optuna databases and journals, Ray Tune trials, and text "
    "logs of Megatron-LM, torchtitan, nanochat and OLMo-core"
)
"""Formats, for messages about files in none of them."""


def find_logs(roots: Iterable[Path]) -> tuple[list[FoundLog], list[Path], list[str]]:
    """Recognize all files at and below some paths.

    Returns:
        The recognized files, in the order of their names; those that were not; and notes on those that could
        not be opened.

    Raises:
        InputError: for a path that is not there.
    """
    found: list[FoundLog] = []
    others: list[Path] = []
    notes: list[str] = []
    for root in roots:
        if not root.exists():
            piped = "; a table on standard input is read by distlaw fit and check" if str(root) == "-" else ""
            raise InputError(f"{root}: no such file or directory{piped}")
        for path in [root] if root.is_file() else _files(root):
            try:
                recognized = recognize(path)
            except InputError as error:
                notes.append(f"not read: {error}")
                continue
            if recognized is None:
                others.append(path)
            else:
                found.append(recognized)
    return found, others, notes


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        paths = (Path(folder, name) for name in sorted(names))
        yield from (path for path in paths if path.is_file())  # not pipes, which would wait for a writer


def recognize(path: Path) -> FoundLog | None:
    """Recognize a file by its content; None for one in no known format.

    Raises:
        InputError: for a file that cannot be opened.
    """
    if path.suffix.lower() in WEIGHTS:
        return None
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if is_event_file(start):
        return FoundLog(path, LogKind.EVENTS)
    if start.startswith(WANDB_HEADER):
        return FoundLog(path, LogKind.WANDB)
    if start.startswith(SQLITE_MAGIC):
        return _database(path)
    if b"\x00" in start[:1024] or not start.strip():
        return None
    return _text_file(path, start)


def _database(path: Path) -> FoundLog | None:
    tables = table_names(path)
    if tables >= OPTUNA_TABLES:
        return FoundLog(path, LogKind.OPTUNA_DATABASE)
    return FoundLog(path, LogKind.MLFLOW_DATABASE) if tables >= MLFLOW_TABLES else None


def _text_file(path: Path, start: bytes) -> FoundLog | None:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"{", b"[")):
        lines = is_json_lines(start) and not (path.suffix == ".json" and is_one_object(text))
        kind = _json_lines(text) if lines else _json_object(path, start)
        return None if kind is None else FoundLog(path, kind)
    decoded = start.decode("utf-8", "replace")
    if tool := recognize_text(decoded) or _tool_further_on(path, decoded):
        return FoundLog(path, LogKind.TEXT, tool)
    if path.suffix in YAML_SUFFIXES:
        return _yaml(path)
    return _table(path, decoded)


def _tool_further_on(path: Path, start: str) -> TextFormat | None:
    """Look for a tool's lines at the end of a log whose beginning has none, as after long warnings."""
    if len(start) < START_BYTES // 2:
        return None
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - START_BYTES, 0))
        return recognize_text(file.read().decode("utf-8", "replace"))


def _json_lines(text: bytes) -> LogKind | None:
    """Return the kind of JSON lines by their first records."""
    lines = text.splitlines()[:20]
    records = [record for line in lines if isinstance(record := _loads(line), dict)]
    if any(map(is_journal, records)):
        return LogKind.OPTUNA_JOURNAL
    return LogKind.TUNE if any(map(is_result, records)) else LogKind.JSON_LINES


def _loads(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json_object(path: Path, start: bytes) -> LogKind | None:
    if path.stat().st_size > MAX_WHOLE_JSON:
        return None
    found = _loads(start if len(start) < START_BYTES else path.read_bytes())
    if is_trainer_state(found) or (found is None and b'"log_history"' in start):
        return LogKind.TRAINER_STATE
    if is_lm_eval(found):
        return LogKind.LM_EVAL
    if is_model_config(found):
        return LogKind.MODEL
    if is_result(found):
        return LogKind.TUNE
    if not isinstance(found, dict):
        return None
    if not any(is_held_out_loss(name) and as_number(value) is not None for name, value in found.items()):
        return LogKind.SETTINGS
    return LogKind.CHECKPOINT_META if "step" in found or STEP_IN_NAME.search(path.stem) else LogKind.RESULT


def _yaml(path: Path) -> FoundLog | None:
    try:
        found = load_yaml(path)
    except InputError:
        return None
    if is_mlflow_run(found):
        return FoundLog(path, LogKind.MLFLOW_RUN)
    return FoundLog(path, LogKind.SETTINGS) if isinstance(found, dict) else None


def _table(path: Path, start: str) -> FoundLog | None:
    """Recognize a table by the names in its first line."""
    head = start.lstrip("\ufeff").split("\n", 1)[0]
    mark = max(",\t;", key=head.count)
    try:
        headers = [name.strip() for name in next(csv.reader([head], delimiter=mark), [])]
    except csv.Error:
        return None
    if len(headers) < 2 or "\n" not in start:
        return None
    kind = table_kind(headers)
    if kind == "W&B panel":
        return FoundLog(path, LogKind.PANEL, table=kind)
    if kind:
        return FoundLog(path, LogKind.RUNS_TABLE, table=kind)
    return FoundLog(path, LogKind.CSV_HISTORY) if step_column(headers) else None
