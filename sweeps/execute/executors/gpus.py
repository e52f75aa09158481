"""GPUs of this machine, and how much of each is taken by jobs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from sweeps.spec.resources import Resources

NVIDIA, AMD = Path("/proc/driver/nvidia/gpus"), Path("/sys/class/kfd/kfd/topology/nodes")
NAMED = re.compile(r"\d+$|GPU-|MIG-")
"""Names that an environment gives GPUs; what follows another is not used, as CUDA reads it."""
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""Environment variables that name the GPUs which a process may use; the first also for AMD's."""


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as its environment names them, without importing torch."""
    for name in VISIBLE:
        if (told := os.environ.get(name)) is not None:
            named = [part.strip() for part in told.split(",")]
            invalid = next((n for n, part in enumerate(named) if not NAMED.match(part)), len(named))
            return tuple(named[:invalid])  # as CUDA reads it
    if NVIDIA.is_dir():
        return tuple(str(number) for number in range(len(list(NVIDIA.iterdir()))))
    ids = [node / "gpu_id" for node in sorted(AMD.glob("*"))] if AMD.is_dir() else []
    return tuple(str(number) for number, file in enumerate(_having(ids)))


def _having(ids: Sequence[Path]) -> list[Path]:
    """Return the files of nodes that are GPUs; processors have the id 0."""
    return [file for file in ids if file.is_file() and file.read_text().strip() != "0"]


class GpuShares:
    """GPUs, each whole or shared by jobs; a job has one share of one GPU, or several whole ones."""

    def __init__(self, names: Sequence[str]) -> None:
        self.free = dict.fromkeys(names, 1.0)
        """Share of each that is free."""

    def find(self, resources: Resources) -> tuple[str, ...] | None:
        """Return the GPUs that a job would have, none if it needs none; None if there is no room.

        A share is taken of the GPU with the least room, so that whole ones stay whole.
        """
        share = min(1.0, resources.gpus)
        able = sorted((free, name) for name, free in self.free.items() if free >= share - 1e-9)
        names = tuple(name for _, name in able[: resources.gpu_count])
        return names if len(names) == resources.gpu_count else None

    def take(self, resources: Resources) -> tuple[str, ...]:
        """Take what :meth:`find` finds.

        Raises:
            LookupError: if there is no room.
        """
        if (names := self.find(resources)) is None:
            raise LookupError(f"no room for {resources}")
        self._add(names, -min(1.0, resources.gpus))
        return names

    def give_back(self, names: Sequence[str], resources: Resources) -> None:
        """Give back what :meth:`take` returned."""
        self._add(names, min(1.0, resources.gpus))

    def _add(self, names: Sequence[str], share: float) -> None:
        for name in names:
            self.free[name] = round(self.free[name] + share, 9)
