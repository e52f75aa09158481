"""Device of training, its instruction sets and memory."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time

import torch

from scaling.cpu import cpuinfo_line
from scaling.errors import InputError

INSTRUCTION_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "TORCHINDUCTOR_CPP_MARCH",
    "CXX",
)
"""Environment variables that change the instruction sets in use, or the compiler."""
# With this workspace cuBLAS computes the same bits each time. PyTorch looks for it once, at the first product
# of a process, which may be long before a run asks for deterministic kernels.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
torch.set_float32_matmul_precision("highest")  # no TF32, which some containers switch on


def device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def unusable_gpus(count: int, own: int = 0) -> str | None:
    """Describe why PyTorch cannot use ``count`` GPUs here; None if it can, and allocates on its ``own``."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if there < count:
        return f"PyTorch can use {there or 'none'} of {count} GPU{'s' * (count > 1)}"
    try:
        torch.zeros(1, device=f"cuda:{own}")
    except RuntimeError as error:
        if not is_out_of_memory(error):
            return f"PyTorch cannot use GPU {own}: {str(error).splitlines()[0]}"
    return None


def processor() -> str:
    """Return the model of the processor, and of the accelerator if there is one."""
    line = cpuinfo_line("model name")
    own = line.partition(":")[2].strip() if line else platform.processor() or platform.machine()
    return f"{own} + {torch.cuda.get_device_name()}" if device().type == "cuda" else own


def instruction_sets() -> str:
    """Return the processor's instruction sets, and restrictions of them by the environment.

    The name of a processor does not determine them: virtual machines give several generations one name.
    """
    flags = cpuinfo_line("flags", "Features") or ""
    return " ".join(
        [*sorted(flags.split()), *(f"{name}={os.environ.get(name, '')}" for name in INSTRUCTION_VARIABLES)]
    )


def keep_freed_memory() -> None:
    """Let glibc keep freed memory: otherwise page faults dominate large temporaries."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        no_mmap, trim_threshold = -4, -1
        libc.mallopt(no_mmap, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def use_deterministic_kernels(wanted: bool) -> None:
    """Use only deterministic kernels on a GPU if ``wanted``, and the fastest otherwise.

    In this mode, PyTorch's attention sums its gradients in one order, and an operation without a
    deterministic kernel raises an error. With warnings instead of errors attention would stay as it is.
    """
    if device().type == "cuda":
        torch.use_deterministic_algorithms(wanted)


def reproducibility(deterministic: bool) -> str:
    """Return how closely another run of a recipe, or one that was killed and went on, repeats its numbers."""
    if device().type == "cpu":
        return "bit for bit on this kind of processor"
    if deterministic:
        return "bit for bit on this kind of GPU"
    return "but for rounding: kernels add in any order; training.deterministic: true for the same bits"


def nondeterministic_operation(error: BaseException) -> InputError | None:
    """Return the error for an operation that has no deterministic kernel; None for other errors."""
    if not isinstance(error, RuntimeError) or "deterministic implementation" not in str(error):
        return None
    operation = str(error).partition(" ")[0]
    return InputError(
        f"training.deterministic: {operation} has no deterministic kernel on this device; leave it out, or "
        "change the part of the method that uses it"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if ``error`` means that memory of the device or the machine is exhausted."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def matmul_rate(dtype: torch.dtype = torch.float32, seconds: float = 0.2) -> float:
    """Measure FLOP/s of this device, with the threads in use, for products of square matrices."""
    side = 4096 if device().type == "cuda" else 1024
    a, b = torch.randn(2, side, side, device=device()).to(dtype)
    (a @ b)[0, 0].item()
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        (a @ b)[0, 0].item()
        done += 1
    return done * 2 * side**3 / elapsed
