"""Training speed of bf16 relative to fp32 on one core: bf16 gains with AMX, and can be slower without it."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version

from scaling.costs.flops import ModelShape
from scaling.units import format_number
from sweeps.dag.expand import Dag, Step
from sweeps.data.cache import cache_dir
from sweeps.estimate.cost import probed_batch, resized

ROUNDS, WINDOW_SECONDS = 3, 0.1
MAX_PROBE_PARAMS = 1e6
"""Parameters of the largest model measured; above, the ratio changes little and a step takes long."""
EQUAL_SPEED_RATIO = 1.05
"""Ratio below which both count as equally fast."""


@dataclass(frozen=True, slots=True)
class PrecisionSpeed:
    """Ratio of tokens per second in bf16 to fp32, of uncompiled training steps on one core."""

    params: int
    ratio: float
    """Median over interleaved rounds."""
    lowest: float
    highest: float

    def __str__(self) -> str:
        where = f"plain PyTorch at {format_number(self.params)} parameters"
        if 1 / EQUAL_SPEED_RATIO < self.ratio < EQUAL_SPEED_RATIO:
            return f"bf16 and fp32 train equally fast on this machine (ratio {self.ratio:.2f}; {where})"
        faster, slower = ("bf16", "fp32") if self.ratio > 1 else ("fp32", "bf16")
        low, middle, high = sorted(
            each if self.ratio > 1 else 1 / each for each in (self.lowest, self.ratio, self.highest)
        )
        return (
            f"{faster} trains {middle:.1f} times as fast as {slower} on this machine "
            f"({low:.2f} to {high:.2f}; {where})"
        )

    @property
    def bf16_is_slower(self) -> bool:
        """True if bf16 is slower by more than ``EQUAL_SPEED_RATIO``."""
        return self.ratio < 1 / EQUAL_SPEED_RATIO


def measured_precision(dag: Dag) -> PrecisionSpeed | None:
    """Return the speed of bf16 at the largest size up to a million parameters that ``dag`` trains.

    Where all are larger, a model of a million parameters stands for them. Measured once on a kind of machine
    (about 1 s), then remembered; None if ``dag`` trains nothing.
    """
    trained = [step for step in dag.steps if step.kind.trains]
    if not trained:
        return None
    fitting = [step for step in trained if step.shape.params <= MAX_PROBE_PARAMS]
    step = max(fitting or trained, key=lambda each: each.shape.params)
    path = cache_dir() / "throughput" / f"precision-{_key(step)}.json"
    try:
        return PrecisionSpeed(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        found = _measure(step)
    with suppress(OSError):  # a measurement that cannot be cached is repeated
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(asdict(found)))
        scratch.replace(path)
    return found


def _key(step: Step) -> str:
    from sweeps.model.device import instruction_sets, processor

    what = [processor(), instruction_sets(), version("torch"), _measured_shape(step), probed_batch(step)]
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _measured_shape(step: Step) -> ModelShape:
    params = min(step.shape.params, MAX_PROBE_PARAMS)
    if params == step.shape.params and step.shape.context == probed_batch(step)[0]:
        return step.shape
    return resized(step.shape, params, probed_batch(step)[0])


def _measure(step: Step) -> PrecisionSpeed:
    import torch

    from sweeps.distill.loss import batch_loss
    from sweeps.model.decoder import PRECISIONS, Decoder
    from sweeps.model.device import keep_freed_memory

    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shape = _measured_shape(step)
    model = Decoder(shape)
    model.initialize(0)
    context, tokens = probed_batch(step)
    blocks = torch.zeros(tokens // context, context + 1, dtype=torch.long)
    plain = step.training.model_copy(update={"compile": False})

    def seconds(precision: str) -> float:
        model.precision = PRECISIONS[precision]
        done, began = 0, time.process_time()
        while not done or time.process_time() - began < WINDOW_SECONDS:
            batch_loss(model, blocks, plain).backward()
            done += 1
        return (time.process_time() - began) / done

    for precision in PRECISIONS:  # the first steps are slower
        seconds(precision)
    ratios = [seconds("fp32") / seconds("bf16") for _ in range(ROUNDS)]
    torch.set_num_threads(threads)
    return PrecisionSpeed(shape.params, statistics.median(ratios), min(ratios), max(ratios))
