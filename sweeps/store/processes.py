"""Identity of a process, by which others on its machine can tell that it has exited."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Identify this process, so that others on this machine can determine that it has exited."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "since": process_start_ticks(os.getpid()),
    }


def is_on_this_machine(holder: dict[str, Any]) -> bool:
    """Return True if a process runs on this machine, so that it is visible from here."""
    return bool(holder.get("machine")) and holder["machine"] == _machine()


def has_exited(holder: dict[str, Any]) -> bool:
    """Return True if a process is known to have exited; False if that cannot be known from here."""
    return is_on_this_machine(holder) and process_start_ticks(holder["pid"]) != holder["since"]


@cache
def _machine() -> str:
    """Return an id of this boot, its pid and time namespaces; empty if the kernel gives none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        spaces = [Path("/proc/self/ns", name) for name in ("pid", "time")]
        return "/".join([boot, *(str(space.readlink()) for space in spaces if space.is_symlink())])
    except OSError:
        return ""


def process_start_ticks(pid: int) -> int | None:
    """Return the start of a process, in ticks since boot; None if it has exited."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
