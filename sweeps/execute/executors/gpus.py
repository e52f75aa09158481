"""GPUs of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sweeps.estimate.memory.layout import DeviceKind

NVIDIA, AMD = Path("/proc/driver/nvidia/gpus"), Path("/sys/class/kfd/kfd/topology/nodes")
NAMED = re.compile(r"\d+$|GPU-|MIG-")
"""Names that an environment gives GPUs; what follows another is not used, as CUDA reads it."""
SMI_SECONDS = 30.0
"""Seconds that ``nvidia-smi`` has to answer."""
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


def smallest_gpu() -> DeviceKind | None:
    """Return the GPU of this machine with the least memory; None if NVIDIA's driver does not tell."""
    if not (tool := shutil.which("nvidia-smi")):
        return None
    command = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        told = subprocess.run(command, capture_output=True, text=True, timeout=SMI_SECONDS, check=True).stdout  # noqa: S603
        each = [line.rpartition(",") for line in told.splitlines()]
        found = [DeviceKind(gpu=True, memory=float(mib) * 2**20, name=name.strip()) for name, _, mib in each]
        return min(found, key=lambda kind: kind.memory or 0.0, default=None)
    return None


def _having(ids: Sequence[Path]) -> list[Path]:
    """Return the files of nodes that are GPUs; processors have the id 0."""
    return [file for file in ids if file.is_file() and file.read_text().strip() != "0"]
