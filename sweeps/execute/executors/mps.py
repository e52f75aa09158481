"""NVIDIA's Multi-Process Service, by which the kernels of several processes run on one GPU at the same time.

Without it, processes that share a GPU take turns. Its control daemon is started once on a machine, for this
user, and stays; it does nothing while no process uses it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
SWITCH = "DISTLAW_MPS"
"""Environment variable; ``0`` leaves MPS alone."""
FOLDERS = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
"""Environment variables by which processes find the daemon."""
USUAL_FOLDER = Path("/tmp/nvidia-mps")  # noqa: S108  (CUDA's default)
SECONDS = 30.0
"""Seconds that the daemon and the check have to answer."""
CHECK = """
import ctypes
cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
raise SystemExit(cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
"""
"""Program that fails if CUDA cannot be used through the daemon, as in containers without shared IPC."""


def sharing_environment(share: float) -> dict[str, str]:
    """Return variables for a process that has ``share`` of a GPU; none without MPS, or for a whole GPU."""
    return dict(_daemon()) if 0 < share < 1 else {}


@cache
def _daemon() -> tuple[tuple[str, str], ...]:
    """Start the daemon unless one runs; return the variables by which it is found, none if it is unusable."""
    started = os.environ.get(FOLDERS[0]) or (USUAL_FOLDER / "control").exists()
    if started or os.environ.get(SWITCH) == "0" or not (control := shutil.which(CONTROL)):
        return ()  # processes find one that the machine's owner has started by themselves
    found: dict[str, str] = {}
    for name, part in zip(FOLDERS, ("pipe", "log"), strict=True):
        folder = Path(tempfile.gettempdir(), f"distlaw-mps-{os.getuid()}", part)
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not folder.is_dir() or folder.stat().st_uid != os.getuid():
            return ()
        found[name] = str(folder)
    hidden = ("CUDA_VISIBLE_DEVICES",)  # the daemon serves all, whose numbers are then those of its clients
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | found
    _succeeds([control, "-d"], environment)  # fails if it runs
    usable = _succeeds([sys.executable, "-c", CHECK], environment)
    return tuple(found.items()) if usable else ()


def _succeeds(command: list[str], environment: dict[str, str]) -> bool:
    with suppress(OSError, subprocess.SubprocessError):
        run = subprocess.run(  # noqa: S603
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
        return run.returncode == 0
    return False
