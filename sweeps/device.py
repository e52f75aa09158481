"""The device that training runs on, and how its memory is used."""

from __future__ import annotations

import ctypes
import sys

import torch


def device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def keep_memory() -> None:
    """Let glibc keep freed memory: otherwise page faults dominate large temporaries."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        no_mmap, trim_threshold = -4, -1
        libc.mallopt(no_mmap, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the device's, or the machine's, memory is full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
