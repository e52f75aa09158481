"""The runs table of a store: one row a run, derived from its results and never stored itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.errors import InputError
from sweeps.store import Store

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = [
    *("run", "kind", "params", "tokens", "loss", "loss_se", "bits_per_byte"),
    *("teacher", "teacher_params", "teacher_tokens", "teacher_loss", "method"),
    *(
        "seed",
        "data_seed",
        "epochs",
        "flops",
        "seconds",
        "vocab",
        "context",
        "aspect_ratio",
        "corpus",
        "status",
        "reason",
    ),
]


def results(root: str | Path) -> pd.DataFrame:
    """The runs of the store at ``root``, finished and failed, in the columns that ``fits`` reads.

    Losses are held-out nats/token, ``flops`` counts the whole run, training and the teacher's inference, as
    if it stood alone; ``seconds`` is what its last attempt trained. Can be called while the sweep runs.

    Raises:
        InputError: if there is no store at ``root``, or a result in it is damaged.
    """
    import pandas as pd

    store = Store(root)
    if not store.exists():
        raise InputError(f"{root}: not a sweep store (no sweep.json in it)")
    spec = (store.read("sweep.json") or {})["spec"]
    rows = [
        row | {"aspect_ratio": spec["aspect_ratio"]} for step in store.steps() if (row := _row(store, step))
    ]
    if not rows:
        raise InputError(f"{root}: this store has no finished run yet")
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values(["kind", "params", "tokens", "teacher_loss", "seed"], ignore_index=True)


def _row(store: Store, step: str) -> dict[str, Any] | None:
    result = store.result(step)
    if result is None:
        return _failed_row(store, step)
    spec = result["step"]
    if spec["kind"] == "trunk":
        return None
    teacher = _teacher(store, spec["teacher"])
    return {
        "run": step,
        "kind": "distillation" if spec["kind"] == "distil" else "supervised",
        "params": result["params"],
        "tokens": result["tokens"],
        "loss": result["loss"],
        "loss_se": result["loss_se"],
        "bits_per_byte": result["bits_per_byte"],
        **teacher,
        "method": _method_name(spec),
        "seed": spec["seed"],
        "data_seed": spec["data_seed"],
        "epochs": result["epochs"],
        "flops": result["flops"]["total"],
        "seconds": result["seconds"]["train"],
        "vocab": spec["shape"]["vocab"],
        "context": spec["shape"]["context"],
        "corpus": spec["corpus"]["source"],
        "status": "done",
    }


def _failed_row(store: Store, step: str) -> dict[str, Any] | None:
    failure = store.read(step, "failure.json")
    if failure is None:
        return None
    return {"run": step, "status": "failed", "reason": failure["reason"]}


def _teacher(store: Store, spec: dict[str, Any] | None) -> dict[str, Any]:
    if spec is None:
        return {}
    from sweeps.steps import Step

    teacher = Step.from_json(spec)
    found = store.result(teacher.id)
    return {
        "teacher": teacher.id,
        "teacher_params": teacher.shape.params,
        "teacher_tokens": teacher.tokens,
        "teacher_loss": found["loss"] if found else math.nan,
    }


def _method_name(spec: dict[str, Any]) -> str | None:
    from sweeps.spec import Method

    return Method(**spec["method"]).name if spec["method"] else None
