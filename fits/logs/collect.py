"""One table of runs from the logs of any tools: :func:`collect`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fits.logs.discovery import LOOKED_FOR, find_logs
from fits.logs.formats.lm_eval import PREFIX
from fits.logs.formats.wandb_run import URL, read_wandb_project
from fits.logs.rows import RowOptions, run_rows
from fits.logs.run_log import RunLog
from fits.logs.runs_on_disk import read_runs_on_disk
from fits.table.columns.column_names import SYMBOLS, SYNONYMS
from fits.table.where import matching_rows, parse_condition
from scaling.errors import InputError

COLUMNS = (
    *("run", "kind", "params", "active_params", "total_params", "tokens", "loss", "loss_se"),
    *("teacher", "teacher_params", "teacher_tokens", "teacher_loss", "method", "seed", "epochs"),
    *(
        "unique_tokens",
        "compute",
        "flops",
        "seconds",
        "vocab",
        "context",
        "aspect_ratio",
        "d_model",
        "n_layers",
    ),
    *("corpus", "tokenizer", "setting", "status", "step"),
)
"""Columns of a collected table, as far as any run has them, in this order; others follow."""
LAST = ("params_source", "tokens_source", "loss_name", "format", "source", "missing")
"""Columns on the origin of a row, which stand last."""
NOTES = "collect_notes"
"""Attribute of a collected table with sentences on what was left out."""
_TAKEN = {*COLUMNS, *LAST, *SYMBOLS}
REQUIRED = ("params", "tokens", "loss")


def collect(
    paths: str | Path | Sequence[str | Path],
    mapping: Mapping[str, str] | None = None,
    *,
    points: str = "last",
    names: str = "",
    loss_unit: str | None = None,
    bytes_per_token: float | None = None,
    tokens_per_step: str | float = "",
    where: str | Sequence[str] = (),
    keep: Sequence[str] = (),
) -> pd.DataFrame:
    """Read the logs of any tools into one table, one row a run.

    Files are recognized by their content. What could not be found is named per run in the column
    ``missing``; a value that is not certain (a training loss, a size that may include embeddings) is left out
    rather than guessed.

    Args:
        paths: Files and directories, which are searched; ``wandb:ENTITY/PROJECT`` asks W&B's API.
        mapping: Name in the logs of each canonical column, by name or symbol, dotted where it is nested:
            ``{"N": "config.model.n_params", "L": "eval/loss"}``. A factor states a unit
            (``{"D": "step*65536"}``).
        points: "last", "best" or "decayed" (the last after each decay of the learning rate to 15 % of its
            peak) evaluation, or "all".
        names: Pattern of runs' names that fills columns: ``students/{teacher}/seed{seed}``. ``*`` stands for
            any part of a name.
        loss_unit: Unit of the losses: those whose names say so, and the one that ``mapping`` names.
        bytes_per_token: Mean bytes of a token of the held-out text, which converts losses in bits/byte.
        tokens_per_step: Tokens of a step, where none are logged: a number, or settings to multiply,
            ``"global_batch_size*seq_length"``.
        where: Conditions that rows have to fulfil, such as ``"status==done"``; on columns of the table, or
            on settings and metrics, which are then kept.
        keep: Further settings or metrics to keep as columns.

    Returns:
        The table, for :func:`fits.read_runs` or :meth:`pandas.DataFrame.to_csv`. ``attrs["collect_notes"]``
        has sentences on files that were left out and on what was assumed.

    Raises:
        InputError: if nothing was recognized (with what was looked for), for losses in a unit that was not to
            be converted, and for a name or pattern that fits no run.

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> import fits
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for params in (1e6, 3e6):
    ...         log = Path(folder, f"run-{params:g}.jsonl")
    ...         points = ({"params": params, "tokens": k * 1e7, "val_loss": 4.0 - 0.1 * k} for k in (1, 2))
    ...         _ = log.write_text("\\n".join(map(json.dumps, points)))
    ...     fits.collect(folder)[["params", "tokens", "loss"]].values.tolist()
    [[1000000.0, 20000000.0, 3.8], [3000000.0, 20000000.0, 3.8]]
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    _check_mapping(mapping or {})
    conditions = [where] if isinstance(where, str) else list(where)
    asked = [name for text in conditions if (name := parse_condition(text).name) not in _TAKEN]
    options = RowOptions(
        points, mapping or {}, loss_unit, bytes_per_token, _text(tokens_per_step), (*keep, *asked)
    )
    logs, notes = _read(given)
    notes += make_names_unique(logs)
    _add_parts_of_names(logs, names)
    rows = [row | {"missing": list(row["missing"])} for log in logs for row in run_rows(log, options)]
    _refuse_units(rows)
    _refuse_unknown_names(rows, options)
    table = _table(rows, logs)
    notes += _join_names_of_teachers(table)
    if conditions:
        table = _matching(table, conditions)
    table.attrs[NOTES] = [*dict.fromkeys([*notes, *_log_notes(logs)])]
    return table


def _matching(table: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Return the rows that fulfil all conditions; none is an error that shows what there is."""
    found = matching_rows(table, conditions, lambda name: SYMBOLS.get(name, name))
    if len(found):
        return found
    names = [parse_condition(text).name for text in conditions]
    there = (
        f"{name} is {', '.join(map(str, table[column].dropna().unique()[:5]))}"
        for name in names
        if (column := SYMBOLS.get(name, name)) in table
    )
    raise InputError(f"where: no run of {len(table)} fulfils {' and '.join(conditions)}; {'; '.join(there)}")


def _text(tokens_per_step: str | float) -> str:
    return tokens_per_step if isinstance(tokens_per_step, str) else f"{tokens_per_step:.17g}"


def _check_mapping(mapping: Mapping[str, str]) -> None:
    for canonical in mapping:
        if canonical not in SYNONYMS and canonical not in SYMBOLS:
            known = ", ".join(sorted({*SYMBOLS, *SYNONYMS}))
            raise InputError(f"cannot map to {canonical!r}; accepted names: {known}")


def _read(paths: Sequence[str | Path]) -> tuple[list[RunLog], list[str]]:
    """Read all logs at some paths."""
    logs: list[RunLog] = []
    for project in (str(path).removeprefix(URL) for path in paths if str(path).startswith(URL)):
        logs += read_wandb_project(project)
    roots = [Path(path) for path in paths if not str(path).startswith(URL)]
    found, others, notes = find_logs(roots)
    read, more = read_runs_on_disk(found, roots)
    notes += more
    logs += read
    if not logs:
        raise InputError(_nothing_found(roots, others, notes))
    return logs, notes


def _nothing_found(roots: Sequence[Path], others: Sequence[Path], notes: Sequence[str]) -> str:
    where = ", ".join(map(str, roots)) or "no path was given"
    suffixes = Counter(path.suffix or path.name for path in others)
    there = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(6))
    text = f"{where}: no log of a run among {len(others)} files" + (f" ({there})" if there else "")
    first = f". {notes[0]}" if notes else ""
    return f"{text}; looked for {LOOKED_FOR}{first}. A table with a row a run is read by distlaw fit itself"


def make_names_unique(logs: Sequence[RunLog]) -> list[str]:
    """Give runs of one name the id of their tracker or the folder they are in, and return a note on each."""
    notes = []
    for name, count in Counter(log.name for log in logs).items():
        if count == 1:
            continue
        own = [log for log in logs if log.name == name]
        ids = [_identity(log) for log in own]
        if len(set(ids)) < count:
            ids = [f"{identity}#{i + 1}" for i, identity in enumerate(ids)]
        for log, identity in zip(own, ids, strict=True):
            log.name = f"{name} ({identity})"
        notes.append(f"{count} runs are called {name!r}: they are told apart as {own[0].name!r}, ...")
    return notes


def _identity(log: RunLog) -> str:
    for key in ("wandb_id", "mlflow_id", "tracker_id"):
        if key in log.settings:
            return str(log.settings[key])
    return log.source.parent.as_posix()


def _add_parts_of_names(logs: Sequence[RunLog], pattern: str) -> None:
    """Add the parts of runs' names that a pattern names to their settings.

    Raises:
        InputError: for a pattern that fits no run.
    """
    if not pattern:
        return
    pieces = re.split(r"(\{\w+\}|\*)", pattern)
    expression = "".join(
        "[^/]*" if piece == "*"
        else f"(?P<{piece[1:-1]}>[^/]+?)" if re.fullmatch(r"\{\w+\}", piece)
        else re.escape(piece)
        for piece in pieces
    )  # fmt: skip
    try:
        wanted = re.compile(rf"(?:^|/){expression}$")
    except re.error as error:
        raise InputError(f"--names {pattern!r}: {error}") from None
    matched = [(log, found) for log in logs if (found := wanted.search(log.name))]
    if not matched:
        examples = ", ".join(repr(log.name) for log in logs[:3])
        raise InputError(f"--names {pattern!r} fits no run; they are called {examples}, ...")
    for log, found in matched:
        log.settings |= found.groupdict()


def _refuse_units(rows: Sequence[dict[str, Any]]) -> None:
    """Reject losses in a unit that was not to be converted."""
    units: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("loss_unit"):
            units.setdefault(row["loss_unit"], []).append(row)
    if not units:
        return
    there = "; ".join(
        f"{len({row['run'] for row in own})} runs in {unit}, such as {own[0]['run']!r} "
        f"({own[0]['loss_name']})"
        for unit, own in units.items()
    )
    nats = len({row["run"] for row in rows if row.get("loss_name") and not row.get("loss_unit")})
    others = f", beside {nats} that are in nats/token or converted" if nats else ""
    reason = next(m for m in units[next(iter(units))][0]["missing"] if m.startswith("loss: "))
    raise InputError(f"losses are in other units: {there}{others}. {reason.removeprefix('loss: ')}")


def _refuse_unknown_names(rows: Sequence[dict[str, Any]], options: RowOptions) -> None:
    """Reject a mapping that no run can fill."""
    for canonical in REQUIRED:
        wanted = options.mapping.get(canonical)
        if wanted and all(row.get(canonical) is None for row in rows):
            reasons = [
                m for row in rows for m in row["missing"] if m.startswith((f"{canonical}: no ", "loss: no "))
            ]
            if reasons:
                raise InputError(
                    f"--map: no run has {wanted!r} for {canonical}; {rows[0]['run']}: {reasons[0]}"
                )


def _table(rows: Sequence[dict[str, Any]], logs: Sequence[RunLog]) -> pd.DataFrame:
    """Return rows as a table, with benchmark results, without columns that no run has."""
    benchmarks = {log.name: {k: v for k, v in log.settings.items() if k.startswith(PREFIX)} for log in logs}
    full = [
        {k: v for k, v in row.items() if k not in ("loss_unit", "tied")}
        | benchmarks.get(row["run"], {})
        | {"missing": "; ".join(row["missing"])}
        for row in rows
    ]
    table = pd.DataFrame(full)
    if "total_params" in table and "active_params" in table and "params" in table:
        for column in ("total_params", "active_params"):
            table[column] = table[column].fillna(table["params"])
        table = table.drop(columns="params")
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, *_sizes(table), "tokens", "loss"])))
    there = [column for column in table if column in REQUIRED or not table[column].isin([None, ""]).all()]
    order = [c for c in COLUMNS if c in there] + [c for c in there if c not in (*COLUMNS, *LAST)]
    return table[[*order, *(c for c in LAST if c in table)]]


def _sizes(table: pd.DataFrame) -> list[str]:
    return [] if "active_params" in table else ["params"]


def _join_names_of_teachers(table: pd.DataFrame) -> list[str]:
    """Complete in place the names of teachers that are the last part of one undistilled run's name."""
    if "teacher" not in table:
        return []
    runs = list(dict.fromkeys(table["run"].astype(str)))
    ends: dict[str, list[str]] = {}
    for run in dict.fromkeys(table.loc[table["teacher"].isna(), "run"].astype(str)):
        ends.setdefault(run.rpartition("/")[2], []).append(run)
    full = {}
    for name in table["teacher"].dropna().unique():
        own = ends.get(str(name), [])
        if name not in runs and len(own) == 1:
            full[name] = own[0]
    table["teacher"] = table["teacher"].map(lambda name: full.get(name, name))
    return [f"teacher {name!r} is run {run!r}" for name, run in full.items()]


def _log_notes(logs: Sequence[RunLog]) -> list[str]:
    return [
        f"{log.name}: {note}" for log in logs for note in log.notes if not note.startswith("parameters: ")
    ]
