"""Runs table of a store: one row for each run, derived from the results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fits.table.projection import PROJECTED_SD
from scaling.errors import InputError
from sweeps.dag.expand import SCHEMA, Step
from sweeps.dag.identity import once_per_object
from sweeps.dag.kind import StepKind
from sweeps.dag.record import KnownParts
from sweeps.spec.method.method import Method
from sweeps.store.listing import Listing
from sweeps.store.records import CACHE_BYTES, COLUMNS, THROUGHPUT_COLUMNS
from sweeps.store.store import Store
from sweeps.watch.gc_pause import without_gc
from sweeps.watch.step_readings import read_through_cache

if TYPE_CHECKING:
    import pandas as pd

NOT_RUNS = frozenset(kind for kind in StepKind if not kind.is_run)
PRESETS = Path(__file__).parents[1] / "presets"
TEXT = ["run", "kind", "teacher", "method", "corpus", "setting", "status"]
"""Columns of text, as ids may look like numbers."""
LEFT_OUT = "left_out"
"""Attribute of a table with the ids of runs left out, by reason."""
CACHES = "caches"
"""Attribute of a table with the sizes of what teachers wrote down."""
LOSS_ON = "loss_on"
"""Column of runs whose command reports only a loss: the text that it was measured on; empty for our own."""
ANOTHER_SETTING = (
    "of another text, tokenizer, context or training rules than the sweep last run there; --all has them"
)
ANOTHER_VERSION = (
    "the step that the record describes has another id: another version trained it under other rules, or the "
    "record was changed"
)
NAMED = 5
"""Largest number of runs left out that are named."""
TEACHER_BY_COMMAND = "teacher_by_command"
"""Field of a row that is read but not complete: the teacher's size is what its result says."""
METRIC_COLUMNS = [
    *("forward_kl", "reverse_kl", "entropy", "likelihood_risk", "coverage_risk", "tokens_written"),
]


Read = tuple[dict[str, Any] | None, str | None, dict[str, Any] | None]
"""Row of a run, or why it is left out; and the record of a cache."""


class _LeftOut(Exception):
    """Raised with the reason if a run is left out of the table."""


@without_gc
def results(root: str | Path, *, everything: bool = False, metrics: bool = False) -> pd.DataFrame:
    """Return the runs of a store, finished and failed, in the columns that ``fits`` reads; also while it
    runs.

    Args:
        root: A path or URL.
        everything: Also runs of other settings (text, tokenizer, context, training rules) than those of the
            sweep last run there, which share theirs because a law needs that.
        metrics: Also the metrics of students beside their loss (:mod:`sweeps.distill.metrics`), and those
            of methods' own.

    Returns:
        One row a run: losses are held-out nats/token, projected ones with a ``projected_sd``; ``flops``
            counts the whole run, training and the teacher's inference, as if it stood alone; ``seconds`` is
            what its last attempt trained, and its speed and memory are there where they are known. Runs that
            are left out are listed in ``attrs["left_out"]``, ids by reason; caches of the sweep in
            ``attrs["caches"]``, with their bytes on disk.

    Raises:
        InputError: If there is no store at ``root``, or a result in it is damaged.

    >>> import sweeps
    >>> sweeps.results("runs/nowhere")
    Traceback (most recent call last):
    scaling.errors.InputError: runs/nowhere: not a sweep store (no sweep.json in it)
    """
    import pandas as pd

    store = Store(root)
    if not store.exists():
        raise store.no_sweep()
    asked = store.read("sweep.json") or {}
    setting = asked.get("setting")
    alike = set(asked.get("settings", [setting]))  # they differ in what is compiled
    rows, left_out, caches = [], dict[str, list[str]](), list[dict[str, Any]]()
    ours = set(asked.get("steps", []))
    for step, (row, why, cache) in _read_rows(store, ours):
        caches += [cache] if cache and step in ours else []
        if row and row["setting"] not in alike and not everything:
            row, why = None, ANOTHER_SETTING
        elif row and row["setting"] in alike:
            row["setting"] = setting
        if why:
            left_out.setdefault(why, []).append(step)
        rows += [row] if row else []
    if not rows:
        notes = "".join(f"; {note}" for note in left_out_notes(left_out))
        raise InputError(
            f"{root}: no run of this store is finished yet, or none that this version of distlaw trained"
            f"{notes}"
        )
    named = (LOSS_ON, PROJECTED_SD, *THROUGHPUT_COLUMNS)
    own = sorted({name for row in rows for name in row} - {*COLUMNS, *METRIC_COLUMNS, *named})
    told = [name for name in named if any(name in row for row in rows)]
    table = pd.DataFrame(rows, columns=[*COLUMNS, *told, *([*METRIC_COLUMNS, *own] if metrics else [])])
    table = table.sort_values(["kind", "params", "tokens", "teacher_loss", "seed"], ignore_index=True)
    table.attrs |= {LEFT_OUT: left_out, CACHES: caches}
    return table


def cache_notes(caches: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one sentence for each of ``caches``: its content, and its size on disk."""
    return [
        f"{each['step'][:8]}: {each['content']}: {each['bytes']:,.0f} bytes on disk, "
        f"{each['bytes'] / each['tokens']:.3g} a token"
        for each in caches
    ]


def teacher_notes(table: pd.DataFrame) -> list[str]:
    """Return a sentence about the runs of ``table`` whose teachers have no result in the store, if any."""
    lacking = table[table["teacher"].notna() & table["teacher_loss"].isna()]
    if lacking.empty:
        return []
    names = [*dict.fromkeys(lacking["teacher"].str[:8])]
    return [
        f"! {len(lacking)} of {len(table)} runs without teacher_loss, as their teachers have no result in "
        f"the store: {_first(names)}; a law cannot use these runs until the sweep is run again"
    ]


def left_out_notes(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """Return one sentence for each reason why runs are left out; ``left_out`` has their ids by reason."""
    notes = []
    for reason, steps in left_out.items():
        runs = f"{len(steps)} run{'s' if len(steps) > 1 else ''}"
        notes.append(f"left out {runs} ({_first(steps)}): {reason}")
    return notes


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def shipped(name: str) -> pd.DataFrame:
    """Return the runs of a real sweep that ships with the package, as :func:`results` would.

    Args:
        name: Its preset's name: ``permissive``, ``methods``, ``methods-tuned``, ``features``, ``private``,
            ``unlearning`` or ``weights``.

    Raises:
        InputError: If there is no such table.

    >>> import sweeps
    >>> runs = sweeps.shipped("permissive")
    >>> runs["kind"].value_counts().to_dict()
    {'distillation': 168, 'supervised': 41}
    """
    import pandas as pd

    path = PRESETS / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in PRESETS.glob("*.csv"))) or "none"
        raise InputError(f"no runs of a sweep {name!r} ship with the package; available: {known}")
    return pd.read_csv(path, dtype=dict.fromkeys(TEXT, "str"), engine="python")


def _read_rows(store: Store, asked: set[str]) -> list[tuple[str, Read]]:
    """Return the row of every run of the store, or why it is left out, by step in order of ids.

    Runs that failed are those of the sweep last run there, whose steps are ``asked``.
    """
    listing, failed = Listing(store, expected=len(asked)), dict[str, Read]()

    def read(steps: list[str]) -> dict[str, Read]:
        names, parts = listing.contents(steps, attempts=False), KnownParts()
        results = store.results(steps, contents=names)
        for step in asked.intersection(names) - results.keys():
            if "failure.json" in names[step]:
                failed[step] = _read_row(store, step, parts, failure=store.read(step, "failure.json"))
        return {step: _read_row(store, step, parts, result) for step, result in results.items()}

    found = read_through_cache(store, "rows", listing, read) | failed
    teachers: dict[str, dict[str, Any] | None] = {}
    for row, _, _ in found.values():
        if row:
            _complete_teacher(store, row, teachers)
    return sorted(found.items())


def _complete_teacher(store: Store, row: dict[str, Any], known: dict[str, dict[str, Any] | None]) -> None:
    """Fill in what the teacher's result says, which is none of the run's own; ``known`` are results read."""
    by_command, teacher = row.pop(TEACHER_BY_COMMAND, False), row.get("teacher")
    if teacher is None:
        return
    if teacher not in known:
        known[teacher] = store.result(teacher)
    result = known[teacher]
    if result and by_command:
        row |= {f"teacher_{name}": value for name, value in _size_of_command(result).items()}
    row["teacher_loss"] = result["loss"] if result else math.nan


def _read_row(
    store: Store,
    step: str,
    parts: KnownParts,
    result: dict[str, Any] | None = None,
    failure: dict[str, Any] | None = None,
) -> Read:
    """Return the row of a run that is finished or failed, or why it is left out; neither for other steps.

    Raises:
        InputError: if its record is damaged.
    """
    cache = _cache(step, result) if result and CACHE_BYTES in result else None
    try:
        return _row(store, step, parts, result, failure), None, cache
    except _LeftOut as why:
        return None, str(why), cache


def _row(
    store: Store,
    step: str,
    parts: KnownParts,
    result: dict[str, Any] | None,
    failure: dict[str, Any] | None,
) -> dict[str, Any] | None:
    spec = (result or failure or {}).get("step")
    if spec is None or spec.get("kind") in NOT_RUNS:
        return None
    if isinstance(schema := spec.get("schema", 0), int) and schema != SCHEMA:
        raise _LeftOut(f"written by another version (schema {schema}, this one has {SCHEMA})")
    try:
        run = Step.from_json(spec, parts)
        known = run.id
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = str(error).splitlines()[0]
        if isinstance(error, KeyError):
            why = f"{why} is missing"
        raise _damaged(store, step, why) from None
    if not isinstance(schema, int):
        raise _damaged(store, step, f"schema is {schema!r:.60}, expected {SCHEMA}")
    if known != step:
        raise _LeftOut(ANOTHER_VERSION)
    row = {
        "run": step,
        "kind": "distillation" if run.teacher else "supervised",
        "params": run.shape.params,
        "tokens": run.tokens,
        **_teacher(run.teacher),
        "method": _method_name(run.method) if run.method else None,
        "seed": run.seed,
        "data_seed": run.data_seed,
        "vocab": run.shape.vocab,
        "context": run.shape.context,
        "aspect_ratio": run.aspect_ratio,
        "corpus": run.corpus.source,
        "setting": run.setting,
    }
    if failure is not None:
        return row | {"flops": _flops(run), "status": "failed", "reason": failure.get("reason", "")}
    assert result is not None
    try:
        return row | _true_size(run, result) | _measured(result) | {"status": "done"}
    except KeyError as error:
        raise InputError(
            f"{store.root}/{step}/result.json: a run without {error}, as another version of distlaw may have "
            "written it; delete it to run its step again"
        ) from None


@once_per_object
def _method_name(method: Method) -> str:
    return method.name


def _cache(step: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return content and size of what a teacher wrote down."""
    content = Step.from_json(result["step"]).label
    return {"step": step, "content": content, "tokens": result["tokens"], "bytes": result[CACHE_BYTES]}


def _flops(run: Step) -> float:
    """Return the FLOPs of a run that failed; NaN where a module of its method is not importable here."""
    try:
        return run.flops
    except InputError:
        return math.nan


def _damaged(store: Store, step: str, why: str) -> InputError:
    return InputError(
        f"{store.root}/{step}: its record of the step is damaged ({why}); delete its result.json or "
        "failure.json to run the step again"
    )


def _measured(result: dict[str, Any]) -> dict[str, Any]:
    found = result.get("yardsticks", {}) | {"tokens_written": result.get("tokens_written")}
    found |= {name: result[name] for name in ("loss", "loss_se", "bits_per_byte", "epochs")}
    found |= {PROJECTED_SD: result["projected"]["sd"]} if "projected" in result else {}
    found |= {name: each for name in THROUGHPUT_COLUMNS if (each := result.get("throughput", {}).get(name))}
    return found | {"flops": result["flops"]["total"], "seconds": result["seconds"]["train"]}


def _true_size(run: Step, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return size and tokens of a run that a command trained, and the text of its loss if it is not ours."""
    if run.trainer is None:
        return {}
    return _size_of_command(result) | ({LOSS_ON: result[LOSS_ON]} if LOSS_ON in result else {})


def _size_of_command(result: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(result[name]) for name in ("params", "tokens")}


def _teacher(teacher: Step | None) -> dict[str, Any]:
    """Return what a run's own record says of its teacher."""
    if teacher is None:
        return {}
    foreign = teacher.foreign
    return {
        "teacher": teacher.id,
        "teacher_params": teacher.shape.params,
        "teacher_tokens": (foreign.tokens or math.nan) if foreign else teacher.tokens,
        TEACHER_BY_COMMAND: teacher.trainer is not None,
    }
