"""Limit on the memory of a process and of those that it starts: a cgroup, where one can be made."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cgroup:
    """Cgroup of our own with a limit on memory, below the one that this process is in."""

    folder: Path
    limit_file: str
    swap_file: str
    """File that takes a 0 for no swap."""
    anonymous: tuple[str, ...]
    """Names in ``memory.stat`` of memory that the kernel cannot drop, by version of the hierarchy."""

    def enter(self) -> None:
        """Move this process, and those that it starts, into it."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def anonymous_mb(self) -> float:
        """Return the memory of all processes in it that the kernel cannot drop, in MB."""
        lines = (self.folder / "memory.stat").read_text().splitlines()
        found = dict(line.split() for line in lines)
        return sum(float(found.get(name, 0)) for name in self.anonymous) / 1e6


@contextmanager
def limited_cgroup(limit_mb: float) -> Iterator[Cgroup | None]:
    """Make a cgroup whose processes have ``limit_mb`` of memory together, pages of files included.

    Yields:
        The cgroup, of version 1 or 2; None where none can be made, as for lack of rights.
    """
    found = next((group for group in _candidates() if _made(group, limit_mb)), None)
    try:
        yield found
    finally:
        for _ in range(100 if found else 0):  # until the kernel has let go of the last process
            with suppress(OSError):
                found.folder.rmdir()
                break
            time.sleep(0.1)


def _candidates() -> Iterator[Cgroup]:
    name = f"distlaw-{os.getpid()}"
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            folder = MOUNT / "memory" / path.lstrip("/") / name
            yield Cgroup(folder, "memory.limit_in_bytes", "memory.swappiness", ("total_rss",))
        elif not controllers:
            yield Cgroup(MOUNT / path.lstrip("/") / name, "memory.max", "memory.swap.max", ("anon", "shmem"))


def _made(group: Cgroup, limit_mb: float) -> bool:
    """Make the directory, which the kernel fills, and set the limit."""
    try:
        group.folder.mkdir()
        (group.folder / group.limit_file).write_text(str(int(limit_mb * 1e6)))
    except OSError:
        with suppress(OSError):
            group.folder.rmdir()
        return False
    with suppress(OSError):  # a kernel without swap
        (group.folder / group.swap_file).write_text("0")
    return True
