"""Processors of this machine: usable cores, and what Linux says of them."""

from __future__ import annotations

import os
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def usable_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpuinfo_line(*names: str) -> str | None:
    """Return the first line of ``/proc/cpuinfo`` that starts with one of the names; None where there is none.

    The line is whole, as in ``model name : Some CPU @ 2.00GHz``.
    """
    lines = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    return next((line for line in lines if line.startswith(names)), None)
