"""Throughput of a run as it was measured: tokens per second, utilization, peak memory, phases."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch

from scaling.costs.hardware import canonical, device_table
from sweeps.model.device import device
from sweeps.train.profiling import named_in_profile

Phase = Literal["data", "teacher", "student", "communication", "optimizer", "checkpoint"]
PHASES: tuple[Phase, ...] = ("data", "teacher", "student", "communication", "optimizer", "checkpoint")
"""Data: reading blocks and what is made of them; student: forward and backward; communication: gradients of
other processes; checkpoint: the time that training waits for one."""
MOST_PENDING = 4096
"""Pairs of events on a GPU that are kept until they are read."""


class PhaseClock:
    """Seconds of a run by phase. On a GPU events are recorded, and read when somebody asks."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._pending: list[tuple[Phase, torch.cuda.Event, torch.cuda.Event, float]] = []

    def time(self, phase: Phase) -> AbstractContextManager[None]:
        """Count the time inside the block."""
        return timed([self], phase)

    def add(self, phase: Phase, seconds: float) -> None:
        """Add seconds to a phase."""
        self._seconds[phase] += seconds

    def add_events(self, phase: Phase, first: torch.cuda.Event, last: torch.cuda.Event, share: float) -> None:
        """Add a share of the time between two events, which is read later."""
        self._pending.append((phase, first, last, share))
        if len(self._pending) > MOST_PENDING:
            self._read()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by phase; on a GPU this waits for what it is still doing."""
        self._read()
        return dict(self._seconds)

    def _read(self) -> None:
        if self._pending:
            self._pending[-1][2].synchronize()
        for phase, first, last, share in self._pending:
            self._seconds[phase] += share * first.elapsed_time(last) / 1e3
        self._pending.clear()


@contextmanager
def timed(clocks: Sequence[PhaseClock], phase: Phase) -> Iterator[None]:
    """Count the time inside the block, in equal shares for all ``clocks``."""
    share = 1 / len(clocks)
    if device().type == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        with named_in_profile(phase):
            yield
        last.record()
        for clock in clocks:
            clock.add_events(phase, first, last, share)
        return
    began = time.perf_counter()
    with named_in_profile(phase):
        yield
    taken = time.perf_counter() - began
    for clock in clocks:
        clock.add(phase, share * taken)


def throughput(
    *, tokens: float, seconds: float, flops: float, precision: str, devices: int, phases: dict[str, float]
) -> dict[str, Any]:
    """Return the fields of a result about speed and memory of the process that trained.

    Args:
        tokens: Tokens that this process's run trained on.
        seconds: Seconds that they took.
        flops: Model FLOPs of those tokens, a teacher's passes included.
        precision: Precision in which matrices are multiplied.
        devices: Devices that shared the work.
        phases: Seconds by phase.
    """
    found: dict[str, Any] = {
        "tokens_per_second": tokens / seconds if seconds else None,
        "peak_memory_bytes": peak_memory(),
        "phases": {name: round(each, 6) for name, each in phases.items()},
    }
    peak = peak_flops(precision)
    if peak and seconds:
        found["mfu"] = flops / seconds / (peak * devices)
    return found


def peak_memory() -> int:
    """Return peak bytes of tensors on the GPU, or of resident memory of this process since it began."""
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def peak_flops(precision: str, name: str | None = None) -> float | None:
    """Return the dense peak of this machine's GPU, or of the one named; None if it is not in the table.

    Source: ``scaling/costs/hardware.csv``.

    >>> peak_flops("bf16", "NVIDIA H100 80GB HBM3")
    989400000000000.0
    >>> peak_flops("bf16", "some other device") is None
    True
    """
    if name is None:
        if device().type != "cuda":
            return None
        name = torch.cuda.get_device_name()
    words = name.replace("-", " ").split()
    known = {(row.name, row.precision): row.peak_flops for row in device_table()}
    for count in range(len(words), 0, -1):
        if found := known.get((canonical(" ".join(words[:count])), precision)):
            return found
    return None
