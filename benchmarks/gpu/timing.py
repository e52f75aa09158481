"""Timing of steps on the device of this machine."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from sweeps.model.device import device
from sweeps.train.throughput import peak_flops

WARM_UP = 5


def synchronize() -> None:
    """Wait for the device."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def release() -> None:
    """Free the memory of what ran before, and begin to measure the peak anew."""
    gc.collect()
    if device().type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def seconds_a_step(step: Callable[[], object], steps: int) -> tuple[float, float]:
    """Return seconds of a step after warming up, and those that warming up took."""
    began = time.perf_counter()
    for _ in range(WARM_UP):
        step()
    synchronize()
    warm = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize()
    return (time.perf_counter() - warm) / steps, warm - began


def rates(step: Callable[[], object], steps: int, tokens: float, flops: float) -> dict[str, Any]:
    """Return tokens per second of a step, its utilization of a known device, and seconds to warm up."""
    seconds, warm = seconds_a_step(step, steps)
    peak = peak_flops("bf16")
    return {
        "tokens_per_second": tokens / seconds,
        "mfu": flops / seconds / peak if peak else None,
        "warm_up_seconds": warm,
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if device().type == "cuda" else None,
    }
