"""Runs on disk: the files that belong to one run are read together, however many tools wrote them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fits.logs.discovery import STEP_IN_NAME, FoundLog, LogKind
from fits.logs.formats.csv_history import read_csv_history
from fits.logs.formats.exported_tables import read_panel, read_runs_table
from fits.logs.formats.json_files import load_json, read_json_lines, split_record
from fits.logs.formats.lm_eval import read_lm_eval
from fits.logs.formats.mlflow_runs import read_mlflow_database, read_mlflow_run
from fits.logs.formats.model_files import read_model
from fits.logs.formats.optuna_study import read_study_database, read_study_journal
from fits.logs.formats.ray_tune import read_trial
from fits.logs.formats.settings_files import read_settings
from fits.logs.formats.tensorboard import read_event_files
from fits.logs.formats.text_logs import read_text_log
from fits.logs.formats.trainer_state import read_trainer_state
from fits.logs.formats.wandb_run import read_wandb_file
from fits.logs.metric_names import is_held_out_loss
from fits.logs.run_log import RunLog, flatten
from scaling.errors import InputError

CHECKPOINT = re.compile(r"checkpoint[-_]\d+|checkpoints")
"""Names of folders of checkpoints, whose files belong to the run of the folder above."""
MANY_RUNS = {
    LogKind.MLFLOW_DATABASE, LogKind.OPTUNA_DATABASE, LogKind.OPTUNA_JOURNAL, LogKind.RUNS_TABLE,
    LogKind.PANEL,
}  # fmt: skip
"""Kinds of files that hold many runs."""
PRIMARY = (LogKind.TRAINER_STATE, LogKind.TUNE, LogKind.MLFLOW_RUN, LogKind.CHECKPOINT_META)
"""Kinds of files whose folder is a run's."""
SECONDARY = (
    LogKind.WANDB,
    LogKind.EVENTS,
    LogKind.JSON_LINES,
    LogKind.CSV_HISTORY,
    LogKind.TEXT,
    LogKind.RESULT,
)
"""Kinds of files that may lie below a run's folder, or be runs of their own; the earlier have precedence."""
ATTACHED = (LogKind.MODEL, LogKind.SETTINGS, LogKind.LM_EVAL)
"""Kinds of files that say more about a run that other files tell of."""


def read_runs_on_disk(found: Sequence[FoundLog], roots: Sequence[Path]) -> tuple[list[RunLog], list[str]]:
    """Read all runs from recognized files.

    A file belongs to the run whose folder is the nearest above it. Where a folder has several logs of one
    kind and none that makes it a run's, each is a run of its own.

    Returns:
        The runs, each named by its path below the root; and notes on files that could not be read, or belong
        to no run.
    """
    notes: list[str] = []
    logs: list[RunLog] = []
    panels: dict[str, RunLog] = {}
    for each in found:
        if each.kind in MANY_RUNS:
            for log in _attempt(notes, _many_runs, each) or []:
                if each.kind is LogKind.PANEL and log.name in panels:
                    panels[log.name].merge(log)
                    continue
                logs.append(log)
                if each.kind is LogKind.PANEL:
                    panels[log.name] = log
    homes = _homes([each for each in found if each.kind not in MANY_RUNS], roots)
    for home, own in homes.items():
        logs += _read_home(home, own, _run_name(home, roots), notes)
    notes += _attach_elsewhere(found, homes, logs)
    return logs, notes


def _attempt(notes: list[str], read: Callable[..., Any], *arguments: object) -> Any:
    """Return what a reader returns; a file that cannot be read becomes a note."""
    try:
        return read(*arguments)
    except InputError as error:
        notes.append(f"not read: {error}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        notes.append(f"not read: a file of another layout than expected ({type(error).__name__}: {error})")
    return None


def _many_runs(each: FoundLog) -> list[RunLog]:
    if each.kind is LogKind.RUNS_TABLE:
        return read_runs_table(each.path, each.table)
    readers = {
        LogKind.PANEL: read_panel,
        LogKind.MLFLOW_DATABASE: read_mlflow_database,
        LogKind.OPTUNA_DATABASE: read_study_database,
        LogKind.OPTUNA_JOURNAL: read_study_journal,
    }
    return readers[each.kind](each.path)


def _own_folder(path: Path) -> Path:
    """Return the folder of a file, or that of its run if it is a checkpoint's."""
    folder = path.parent
    while CHECKPOINT.fullmatch(folder.name) and folder.parent != folder:
        folder = folder.parent
    return folder


def _homes(found: Sequence[FoundLog], roots: Sequence[Path]) -> dict[Path, list[FoundLog]]:
    """Group files by the folder, or the file, of their run."""
    homes: dict[Path, list[FoundLog]] = {}
    tops = {root if root.is_dir() else root.parent for root in roots}
    for each in found:
        if each.kind in PRIMARY:
            homes.setdefault(_own_folder(each.path), []).append(each)
    rest: dict[Path, list[FoundLog]] = {}
    for each in found:
        if each.kind in SECONDARY:
            home = _nearest(each.path, homes, tops)
            (homes[home] if home else rest.setdefault(_own_folder(each.path), [])).append(each)
    for folder, files in rest.items():
        kinds = [each.kind for each in files]
        several = any(kinds.count(kind) > 1 for kind in SECONDARY if kind is not LogKind.EVENTS)
        for each in files:
            alone = several and each.kind is not LogKind.EVENTS
            homes.setdefault(each.path if alone else folder, []).append(each)
    for each in found:
        if each.kind in ATTACHED:
            home = _nearest(each.path, homes, tops)
            if home:
                homes[home].append(each)
    return homes


def _nearest(path: Path, homes: dict[Path, list[FoundLog]], tops: set[Path]) -> Path | None:
    """Return the nearest run's folder at or above a file's, up to the root."""
    for folder in path.parents:
        if folder in homes:
            return folder
        if folder in tops:
            return None
    return None


def _run_name(home: Path, roots: Sequence[Path]) -> str:
    """Return a run's path below its root, or the root's own name."""
    for root in roots:
        if root.is_file() and root.parent == home:
            return root.stem
        if home == root:
            return (home.resolve().stem if home.is_file() else home.resolve().name) or str(home)
        if home.is_relative_to(root):
            below = home.relative_to(root)
            return below.with_suffix("").as_posix() if home.is_file() else below.as_posix()
    return home.resolve().name


def _read_home(home: Path, own: list[FoundLog], name: str, notes: list[str]) -> list[RunLog]:
    """Read the files of one run, and merge them; a record of each kind is used, the first has precedence."""
    logs = []
    for kind in (*PRIMARY, *SECONDARY):
        files = [each for each in own if each.kind is kind]
        if files:
            read = _attempt(notes, _read_kind, kind, files, name)
            if read is not None:
                logs.append(read)
    if not logs:
        return []
    log: RunLog = logs[0]
    for other in logs[1:]:
        log.merge(other)
        log.format = f"{log.format}, {other.format}"
    _attach(log, home, [each for each in own if each.kind in ATTACHED], notes)
    return [log]


def _read_kind(kind: LogKind, files: list[FoundLog], name: str) -> RunLog | None:
    paths = [each.path for each in files]
    if kind is LogKind.EVENTS:
        return read_event_files(paths, name)
    if kind is LogKind.TRAINER_STATE:
        return read_trainer_state(max(paths, key=_progress), name)
    if kind is LogKind.CHECKPOINT_META:
        return _checkpoint_metas(paths, name)
    path = paths[-1]
    if kind is LogKind.TEXT:
        tool = files[-1].tool
        assert tool is not None
        return read_text_log(path, name, tool)
    readers: dict[LogKind, Callable[[Path, str], RunLog | None]] = {
        LogKind.TUNE: read_trial,
        LogKind.MLFLOW_RUN: read_mlflow_run,
        LogKind.WANDB: read_wandb_file,
        LogKind.JSON_LINES: read_json_lines,
        LogKind.CSV_HISTORY: read_csv_history,
        LogKind.RESULT: _read_result,
    }
    return readers[kind](path, name)


def _progress(path: Path) -> tuple[float, int]:
    """Return the last step of a ``trainer_state.json``; the run's own wins over its last checkpoint's."""
    try:
        step = float(load_json(path)["global_step"])
    except (InputError, KeyError, TypeError, ValueError):
        return -1.0, 0
    return step, -len(path.parts)


def _read_result(path: Path, name: str) -> RunLog:
    """Read the final values of a run from one object."""
    log = RunLog(name, path, LogKind.RESULT.value)
    _, numbers, log.settings = split_record(dict(flatten(load_json(path))))
    log.final(numbers)
    return log


def _checkpoint_metas(paths: Sequence[Path], name: str) -> RunLog:
    """Read the step and validation of each checkpoint, as nanochat and OLMo-core write them."""
    log = RunLog(name, paths[0], LogKind.CHECKPOINT_META.value)
    records = []
    for path in paths:
        record = dict(flatten(load_json(path)))
        found = STEP_IN_NAME.search(path.stem)
        records.append((float(record.pop("step", found[1] if found else 0)), record))
    for step, record in sorted(records, key=lambda pair: pair[0]):
        log.settings |= record
        metrics = {key: value for key, value in record.items() if "/" in key or is_held_out_loss(key)}
        log.add(step, metrics)
    return log


def _attach(log: RunLog, home: Path, attached: list[FoundLog], notes: list[str]) -> None:
    """Add the model's size, the settings and the benchmark results that lie in a run's folder."""
    model = _model_of(home, [each.path.parent for each in attached if each.kind is LogKind.MODEL], log)
    read = None if model is None else _attempt(notes, read_model, model)
    if read is not None:
        log.settings = {**read[0], **log.settings}
        log.notes += read[1]
    for each in attached:
        if each.kind is LogKind.SETTINGS:
            settings = _attempt(notes, read_settings, each.path) or {}
            log.settings = {**{f"{each.path.stem}.{k}": v for k, v in settings.items()}, **log.settings}
        elif each.kind is LogKind.LM_EVAL:
            log.settings |= (_attempt(notes, read_lm_eval, each.path) or ({}, ""))[0]


def _model_of(home: Path, folders: Sequence[Path], log: RunLog) -> Path | None:
    """Return the folder of a run's model: its own, that of its last checkpoint, or the only other one."""
    if home in folders:
        return home
    checkpoints = [folder for folder in folders if CHECKPOINT.fullmatch(folder.name)]
    if checkpoints:
        return max(checkpoints, key=lambda folder: int(re.sub(r"\D", "", folder.name) or 0))
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders[:4])
        log.notes.append(f"parameters: several models lie in its folder ({names})")
    return folders[0] if len(folders) == 1 else None


def _attach_elsewhere(
    found: Sequence[FoundLog], homes: dict[Path, list[FoundLog]], logs: Sequence[RunLog]
) -> list[str]:
    """Attach benchmark results outside of runs' folders to the runs whose model they name."""
    notes: list[str] = []
    attached = {each.path for own in homes.values() for each in own}
    for each in found:
        if each.kind is not LogKind.LM_EVAL or each.path in attached:
            continue
        read = _attempt(notes, read_lm_eval, each.path)
        if read is None:
            continue
        columns, model = read
        own = [log for log in logs if model and Path(model).parts[-1:] and _is_model_of(log, Path(model))]
        if len(own) == 1:
            own[0].settings |= columns
        else:
            notes.append(f"not used: {each.path} evaluates {model or 'an unnamed model'}, none of these runs")
    return notes


def _is_model_of(log: RunLog, model: Path) -> bool:
    """Return True if a model's path is a run's folder or lies in it."""
    named = tuple(Path(log.name).parts)
    parts = model.parts
    return any(parts[i : i + len(named)] == named for i in range(len(parts)))
