"""Validation of the records in a store when they are read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sweeps.store.outcomes import Ending

COLUMNS = [
    *("run", "kind", "params", "tokens", "loss", "loss_se", "bits_per_byte"),
    *("teacher", "teacher_params", "teacher_tokens", "teacher_loss", "method"),
    *("seed", "data_seed", "epochs", "flops", "seconds"),
    *("vocab", "context", "aspect_ratio", "corpus", "setting", "status", "reason"),
]
"""Columns of every runs table, which no metric may be named like."""
THROUGHPUT_COLUMNS = ["tokens_per_second", "mfu", "peak_memory_bytes"]
"""Columns about the speed of runs, where it is known: of our own loop, or as metrics of a command."""
WITHOUT_LOSS = ("trunk", "cache", "cache-features", "generate")
"""Kinds of steps whose results have no loss."""
ENDINGS = frozenset(map(str, Ending))
Check = Callable[[Any], str | None]
"""Function that returns what a value should be, or None if it is valid."""


def _number(at_least: float = 0.0) -> Check:
    def check(value: Any) -> str | None:
        right = isinstance(value, int | float) and not isinstance(value, bool)
        if right and at_least <= value <= sys.float_info.max:
            return None
        return f"a number of at least {at_least:g}"

    return check


def _finite(value: Any) -> str | None:
    wrong = _number(-sys.float_info.max)(value)
    return wrong and "a finite number"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else "a text"


def _time(value: Any) -> str | None:
    try:
        datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return "a time such as 2026-01-01T00:00:00+00:00"
    return None


def _place(value: Any) -> str | None:
    inside = isinstance(value, str) and "\0" not in value and {"", ".", ".."}.isdisjoint(value.split("/"))
    return None if inside else "a path inside the store"


def _name(value: Any) -> str | None:
    inside = _place(value) is None and "/" not in value
    return None if inside else "the name of a directory beside it"


def _list(value: Any) -> str | None:
    return None if isinstance(value, list) else "a list"


def _object(value: Any) -> str | None:
    return None if isinstance(value, dict) else "an object"


def _loss(value: Any) -> str | None:
    wrong = _number()(value)
    return wrong and "a number of nats/token, not negative"


def _ending(value: Any) -> str | None:
    if isinstance(value, str) and value in ENDINGS:
        return None
    return f"one of {', '.join(Ending)}"


def _or_null(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _numbers(value: Any) -> str | None:
    right = isinstance(value, dict) and all(_number()(each) is None for each in value.values())
    return None if right else "an object of numbers, none of them negative"


def _rows(value: Any) -> str | None:
    right = isinstance(value, list) and all(isinstance(row, dict) and _row_is_right(row) for row in value)
    return None if right else f"a list of objects with {', '.join(ROW)}"


def _row_is_right(row: Mapping[str, Any]) -> bool:
    return all(name in row and check(row[name]) is None for name, check in ROW.items())


def _texts(value: Any) -> str | None:
    right = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return None if right else "a list of texts"


ROW: dict[str, Check] = {"id": _text, "kind": _text, "label": _text, "needs": _texts, "flops": _number()}
"""Fields of a step in ``steps.json``."""
ATTEMPT: dict[str, Check] = {
    **dict.fromkeys(("steps_done", "steps", "began", "elapsed", "seconds", "beat", "gpus", "due"), _number()),
    **dict.fromkeys(("lived", "leaving", "unheard", "time_limit", "write_seconds"), _number()),
    **dict.fromkeys(("cpus", "nodes", "members", "pieces"), _number(1)),
    "patience": _number(),
    "loss": _or_null(_finite),  # of training, negative where a method ascends
    "ending": _ending,
    "reason": _or_null(_text),
    **dict.fromkeys(("host", "machine", "job", "driver"), _or_null(_text)),
    **dict.fromkeys(("started", "ended"), _time),
    "log": _or_null(_place),
}
"""Fields of a claim, a heartbeat and an end."""
THROUGHPUT: dict[str, Check] = {
    **dict.fromkeys(THROUGHPUT_COLUMNS, _or_null(_number())),
    "phases": _numbers,
}
"""Fields of the speed of a run."""
CACHE_BYTES = "cache_bytes"
"""Field of a result: bytes of what a teacher wrote down, on disk."""
RESULT: dict[str, Check] = {
    CACHE_BYTES: _number(),
    "loss": _loss,
    "loss_se": _or_null(_number()),
    "bits_per_byte": _or_null(_number()),
    "projected": _numbers,
    "params": _number(),
    "tokens": _number(),
    "loss_on": _text,
    "epochs": _number(),
    "flops": _numbers,
    "seconds": _numbers,
    "throughput": _object,
    "tokens_written": _number(),
    "yardsticks": _object,
    "text_columns": _numbers,
    "model": _name,
}
FAILURE: dict[str, Check] = {"reason": _text, "attempt": _number()}
DRIVER: dict[str, Check] = {
    "seconds": _number(),
    "slots": _number(),
    "host": _text,
    "ended": _or_null(_text),
    "seconds_left": _or_null(_number()),
    "time_limits": _numbers,
    "due": _number(),
}
SWEEP: dict[str, Check] = {"spec": _object, "steps": _list, "caps": _object, "settings": _list}
STEPS: dict[str, Check] = {"steps": _rows}
REQUIRED_FIELDS = {"sweep.json": ("spec",), "steps.json": ("steps",), "driver": ("seconds", "ended")}
"""Required fields of records."""


def record_fault(record: Mapping[str, Any], place: tuple[str, ...]) -> str | None:
    """Describe the first fault of a record at ``place`` of a store; None if it is valid.

    Fields without a rule are not checked; fields that other versions leave out are checked by their readers.
    """
    kind = _kind(place)
    for name in REQUIRED_FIELDS.get(kind, ()):
        if name not in record:
            return f"{name} is missing"
    if fault := _first_fault(record, _CHECKS.get(kind, {})):
        return fault
    if kind == "end" and "ending" not in record:
        return "ending is missing"
    return _fault_of_result(record, place) if kind == "result.json" else None


def _first_fault(record: Mapping[str, Any], checks: Mapping[str, Check]) -> str | None:
    """Describe the first field whose value is not what its check accepts."""
    for name, check in checks.items():
        if name in record and (right := check(record[name])):
            return f"{name} is {record[name]!r:.60}, expected {right}"
    return None


def remedy_of_damage(name: str) -> str:
    """Return a remedy for a damaged file."""
    if name in ("sweep.json", "steps.json"):
        return "run the sweep again to rewrite it"
    return "delete it to run its step again" if name in ("result.json", "failure.json") else "delete it"


def _kind(place: tuple[str, ...]) -> str:
    *folders, name = place
    if folders and folders[-1] == "attempts" and name[:4].isdigit():
        return "end" if name.endswith(".end.json") else "attempt"
    return "driver" if folders == ["drivers"] else name


def _fault_of_result(record: Mapping[str, Any], place: tuple[str, ...]) -> str | None:
    spec = record.get("step")
    if record.get("id") != place[0] or not isinstance(spec, dict):
        return "not a result of this step"
    if wrong := _text(spec.get("kind", "")):
        return f"the step's kind is {spec['kind']!r:.60}, expected {wrong}"
    if spec.get("kind") not in WITHOUT_LOSS and "loss" not in record:
        return "loss is missing"
    fault = _first_fault(record.get("throughput", {}), THROUGHPUT)
    return f"throughput.{fault}" if fault else None


_CHECKS = {
    "attempt": ATTEMPT,
    "end": ATTEMPT,
    "driver": DRIVER,
    "result.json": RESULT,
    "failure.json": FAILURE,
    "sweep.json": SWEEP,
    "steps.json": STEPS,
}
