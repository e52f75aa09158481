"""Profiler trace of a few steps of training, on request, for Perfetto or ``chrome://tracing``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

SKIPPED, WARM_UP, TRACED = 5, 2, 5
"""Steps before a trace: skipped and to warm up; and steps of a trace."""

_CURRENT: ContextVar[profile | None] = ContextVar("profiler", default=None)


@contextmanager
def profiled(folder: Path) -> Iterator[None]:
    """Write a trace of some steps that are trained inside the block to ``folder``, as ``trace.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(ProfilerActivity.CUDA)

    def write(found: profile) -> None:
        found.export_chrome_trace(str(folder / "trace.json"))

    steps = schedule(skip_first=SKIPPED, wait=0, warmup=WARM_UP, active=TRACED, repeat=1)
    with profile(activities=kinds, schedule=steps, on_trace_ready=write, profile_memory=True) as profiler:
        token = _CURRENT.set(profiler)
        try:
            yield
        finally:
            _CURRENT.reset(token)


def step_profiler() -> None:
    """Tell the profiler, if there is one, that an optimizer step has ended."""
    if profiler := _CURRENT.get():
        profiler.step()


def named_in_profile(name: str) -> AbstractContextManager[object]:
    """Name what is inside the block in a trace, if there is one."""
    return record_function(name) if _CURRENT.get() else nullcontext()
