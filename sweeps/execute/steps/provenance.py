"""Provenance of a store and of its results: the spec, its steps, and versions of the software."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sweeps.dag.compiled_sizes import with_compile
from sweeps.dag.expand import Dag, Step
from sweeps.spec.resources import caps_of
from sweeps.spec.spec import Sweep
from sweeps.store.store import Store

STEPS = "steps.json"
RECORDED = ("distlaw", "torch", "numpy", "ray", "tokenizers", "safetensors", "transformers")


def record_sweep(store: Store, sweep: Sweep, dag: Dag) -> None:
    """Write ``sweep.json`` (resolved spec, versions, git commit if any) and ``steps.json``."""
    compiled = {float(s.shape.params) for s in dag.steps if s.kind.trains and s.training.compile}
    if sweep.training.compile == "auto":  # as it was decided, for all who read the record
        sweep = with_compile(sweep, given=sorted(compiled) or False)
    record: dict[str, Any] = {
        "spec": sweep.model_dump(),
        "steps": [step.id for step in dag.steps],
        "setting": dag.example.setting,
        "settings": sorted({step.setting for step in dag.steps if step.kind.is_run}),
        "flops": dag.flops,
        "caps": caps_of(sweep).model_dump(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "commit": git_commit(),
    }
    store.write(record, "sweep.json")
    steps = [
        {
            "id": step.id,
            "kind": step.kind,
            "label": step.label,
            "needs": [need.id for need in step.needs],
            "flops": step.flops_to_spend,
        }
        for step in dag.steps
    ]
    store.write({"steps": steps}, STEPS)


def versions() -> dict[str, str]:
    """Return the versions of Python and of packages that can change results."""
    found = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Return the git commit of the working tree of this code, or None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def commit_result(store: Store, step: Step, measured: dict[str, Any]) -> dict[str, Any]:
    """Commit the result of ``step``; return it, or that of another process that was first."""
    result = result_provenance(step) | measured
    if not store.commit(step.id, result):
        found = store.result(step.id)
        assert found is not None
        return found
    store.remove(step.id, "failure.json")
    return result


def result_provenance(step: Step) -> dict[str, Any]:
    """Return the fields of every result: its step, device and versions."""
    from sweeps.model.device import device

    return {
        "id": step.id,
        "step": step.as_json(),
        "params": step.shape.params,
        "tokens": step.tokens,
        "flops": step.flops_by_part() | {"total": step.flops},
        "device": f"{device().type}: {platform.processor() or platform.machine()}",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
