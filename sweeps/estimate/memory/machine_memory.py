"""Memory that this process may use: the machine's, or the least limit of the cgroups that it is in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MEMBERSHIP, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def machine_memory() -> float:
    """Return bytes of memory that this process may use, as in a container less than the machine's."""
    whole = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min([whole, *_limits()])


def _limits() -> Iterator[float]:
    """Yield the limits of the cgroups of this process and of those around them, of either version."""
    with suppress(OSError):
        for line in MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                yield from _limits_along(MOUNT / "memory", path, "memory.limit_in_bytes")
            elif not controllers:
                yield from _limits_along(MOUNT, path, "memory.max")


def _limits_along(root: Path, path: str, name: str) -> Iterator[float]:
    """Yield limits from a cgroup up to the root, which in a container is the container's own."""
    place = root / path.lstrip("/")
    for folder in (place, *(parent for parent in place.parents if parent.is_relative_to(root))):
        with suppress(OSError, ValueError):  # not there, or "max"
            yield float(int((folder / name).read_text()))
