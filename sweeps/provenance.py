"""What was asked of a store, and with which software."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sweeps.spec import Sweep
from sweeps.steps import Dag
from sweeps.store import Store

RECORDED = ("distlaw", "torch", "numpy", "ray", "tokenizers", "safetensors", "transformers")


def record_sweep(store: Store, sweep: Sweep, dag: Dag) -> None:
    """Write ``sweep.json``: the resolved spec, its steps, versions and the git commit, if any."""
    record: dict[str, Any] = {
        "spec": sweep.model_dump(),
        "steps": [step.id for step in dag.steps],
        "setting": dag.steps[0].setting,
        "flops": dag.flops,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "commit": git_commit(),
    }
    store.write(record, "sweep.json")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the working tree this code runs from, or None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
