"""Estimated cost of a sweep before it runs, from a short measured probe or a named GPU's peak."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from bisect import bisect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from scaling.costs.flops import FORWARDS_PER_STEP, ModelShape
from scaling.cpu import cpuinfo_line
from sweeps.dag.expand import Dag, Step
from sweeps.dag.kind import StepKind
from sweeps.dag.ladder import shape_for
from sweeps.data.cache import cache_dir
from sweeps.estimate.bill import Bill
from sweeps.estimate.memory.memory import concurrent_memory
from sweeps.estimate.memory.placement import memory_on, planned_resources, recomputed_flops
from sweeps.spec.resources import GPU_SHARE, Devices
from sweeps.spec.spec import Sweep
from sweeps.store.checkpoints.checkpoints import KEPT

if TYPE_CHECKING:
    from torch import Tensor

PROBED_PARAMS = (7e3, 50e3, 300e3)
PROBE_SECONDS = 0.4
PROBED_CONTEXT, PROBED_BATCH_TOKENS = 256, 2048
"""Longest context and largest batch of a probe, in tokens: above, seconds a FLOP change little."""
STARTUP_SECONDS = 4.0
"""Importing torch in every process, once a sweep; Ray takes as long again."""

Cost = Callable[[Step], float]
"""Estimated seconds of a step."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Seconds a token on one core of this machine, at a few sizes; in between, interpolated in logarithms."""

    flops: list[float]
    """F, forward FLOPs a token, of the probed shapes, ascending."""
    training: list[float]
    """Seconds a token of training."""
    inference: list[float]
    """Seconds a token of a forward pass."""
    writing: list[float]
    """Seconds a token of text written, its prompt included: one token after the other, a batch at a time."""
    texts: list[float]
    """Seconds a token of text that a teacher writes for its students, many texts at a time."""
    heldout_tokens: int = 0
    """Tokens of an evaluation."""

    def seconds(self, step: Step, recomputed: float = 0.0) -> float:
        """Estimated seconds of ``step``, its evaluation included; a server's are not among them.

        Args:
            step: The step.
            recomputed: FLOPs of its forward pass that are computed twice.
        """
        own, (by_student, by_teacher) = step.shape.forward_flops, step.tokens_to_write
        seconds = self.training_seconds(step) + recomputed / own * self._at(own, self.inference)
        seconds += by_student * self._at(own, self.writing)
        heads, hidden = step.auxiliary_flops_to_spend
        if hidden:
            seconds += step.tokens_to_train * self._at(hidden, self.inference)
        seconds += step.tokens_to_train * self._at(own, self.training) * heads / (FORWARDS_PER_STEP * own)
        if step.teacher and not step.teacher.served:
            of_teacher = step.teacher.shape.forward_flops
            seconds += step.tokens_to_teach * sum(self._at(flops, self.inference) for flops in step.reading)
            seconds += by_teacher * self._at(
                of_teacher, self.texts if step.kind is StepKind.GENERATE_TEXT else self.writing
            )
        if (step.foreign and not step.served) or step.kind.is_run:
            seconds += self.heldout_tokens * self._at(own, self.inference)
        return seconds

    def training_seconds(self, step: Step) -> float:
        """Estimated seconds of forward and backward passes of the model itself, and of the optimizer."""
        own = step.shape.forward_flops
        return step.tokens_to_train * step.passes.trained * self._at(own, self.training)

    def _at(self, flops: float, seconds: list[float]) -> float:
        if flops >= self.flops[-1]:  # above the largest probe, time grows with FLOPs
            return seconds[-1] * flops / self.flops[-1]
        if flops <= self.flops[0]:
            return seconds[0]
        right = bisect(self.flops, flops)
        low, high = self.flops[right - 1 : right + 1]
        share = math.log(flops / low) / math.log(high / low)
        return seconds[right - 1] ** (1 - share) * seconds[right] ** share


@dataclass(frozen=True, slots=True)
class SweepEstimate:
    """Estimated time, memory and money of a DAG."""

    device_seconds: float
    """Seconds of one device: a GPU, or where steps use none, a core."""
    critical_path: float
    """Seconds of the longest chain of steps that wait for each other."""
    wall_seconds: float
    """Seconds on the given number of devices."""
    memory_bytes: float
    """Peak memory of one GPU, where steps use them; else of the machine. Steps that wait for each other never
    run side by side."""
    store_bytes: float
    """Peak size of the store, but for what teachers write down."""
    bill: Bill
    """FLOPs, GPU-hours and dollars."""


def estimate_sweep(dag: Dag, seconds: Cost, devices: int, sweep: Sweep | None = None) -> SweepEstimate:
    """Estimate ``dag`` on so many ``devices``: GPUs where the spec's steps use them, else cores."""
    took: dict[str, float] = {}
    chains: dict[str, float] = {}
    bills, shares = [], []
    hardware = sweep.hardware if sweep else Devices()
    for step in dag.steps:
        resources = planned_resources(step, sweep)
        took[step.id] = seconds(step)
        chains[step.id] = took[step.id] + max((chains.get(n.id, 0.0) for n in step.needs), default=0.0)
        bills.append(Bill.of(step.flops_to_spend, took[step.id], resources, hardware))
        shares.append(took[step.id] * resources.nodes * (resources.gpus or resources.cpus))
    critical, total = max(chains.values(), default=0.0), sum(shares)
    return SweepEstimate(
        device_seconds=total,
        critical_path=critical,
        wall_seconds=STARTUP_SECONDS + max(total / devices, critical) if dag.steps else 0.0,
        memory_bytes=_peak_memory(dag, devices, sweep),
        store_bytes=store_bytes(dag, devices),
        bill=sum(bills, Bill()),
    )


def seconds_on(sweep: Sweep, throughput: Throughput | None) -> Cost:
    """Estimated seconds of a step: FLOPs over what the spec's GPUs reach, or as this machine was measured.

    A GPU reaches its share of the peak of the precision in which each model multiplies its matrices. What a
    step's layout computes twice takes time too.
    """
    if sweep.hardware.gpu is None:
        assert throughput is not None, "without a named GPU, a machine must be measured"
        return _once(lambda step: throughput.seconds(step, recomputed_flops(step, sweep)))

    @cache
    def reached(precision: str) -> float:
        gpu = sweep.hardware.multiplying(precision)
        return gpu.peak_flops * gpu.utilisation

    def seconds(step: Step) -> float:
        resources = planned_resources(step, sweep)
        share = (resources.gpus or GPU_SHARE) * resources.nodes
        spent = sum(flops / reached(how) for how, flops in step.flops_by_precision().items())
        return (spent + recomputed_flops(step, sweep) / reached(step.precision)) / share

    return _once(seconds)


def _once(cost: Cost) -> Cost:
    """Return ``cost``, computed once for each id."""
    known: dict[str, float] = {}

    def found(step: Step) -> float:
        if step.id not in known:
            known[step.id] = cost(step)
        return known[step.id]

    return found


def _peak_memory(dag: Dag, devices: int, sweep: Sweep | None) -> float:
    """Return the peak bytes of one GPU with all that share it, if steps use GPUs; else of the machine."""
    needs = [memory_on(step, sweep) for step in dag.steps]
    gpus = [planned_resources(step, sweep).gpus for step in dag.steps]
    if not any(gpus):
        return concurrent_memory(dag.steps, needs, [1.0] * len(gpus), devices)
    return concurrent_memory(dag.steps, needs, [min(1.0, share) for share in gpus], 1.0)


def store_bytes(dag: Dag, devices: int) -> float:
    """Bytes of all models, of checkpoints of shared prefixes, and of the largest steps under way."""
    trained = [step for step in dag.steps if step.tokens_to_train]
    states = sorted((12.0 * step.shape.total_params for step in trained), reverse=True)
    models = sum(4.0 * step.shape.total_params for step in trained if not step.ends_stable)
    prefixes = sum(12.0 * step.shape.total_params for step in trained if step.kind is StepKind.SHARED_PREFIX)
    return models + KEPT * (prefixes + sum(states[:devices]))


def disk(dag: Dag) -> float:
    """Bytes that teachers write down."""
    return sum(step.tokens * _bytes_per_token(step) for step in dag.steps)


def _bytes_per_token(step: Step) -> float:
    """Return the bytes on disk of a token of logits, text or hidden states that a step writes down."""
    from sweeps.distill.caches.logit_format import kept, stored_bytes_per_token
    from sweeps.distill.generation.generated_text import text_format

    if step.hidden:
        return step.hidden.bytes_per_token(step.shape.width)
    if step.method is None or step.kind.trains:
        return 0.0
    if step.kind is StepKind.CACHE_LOGITS:
        return stored_bytes_per_token(kept(step.method, step.shape.vocab), step.shape.context)
    return text_format(step.method, step.shape.vocab).dtype.itemsize


def measured_throughput(step: Step, heldout_tokens: int) -> Throughput:
    """This machine's throughput for steps like ``step``, measured once (about 6 s) and then remembered."""
    path = cache_dir() / "throughput" / f"{_machine_key(step)}.json"
    try:
        found = Throughput(**json.loads(path.read_text()))
        found.seconds(step)
    except (OSError, ValueError, TypeError, IndexError, RecursionError):
        found = _probe(step)
        with suppress(OSError):  # a memo that cannot be kept is measured again
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_suffix(f".{os.getpid()}")
            scratch.write_text(json.dumps(asdict(found)))
            scratch.replace(path)
    return replace(found, heldout_tokens=heldout_tokens)


def probed_batch(step: Step) -> tuple[int, int]:
    """Return context and batch, in tokens, with which this machine is measured for steps like ``step``."""
    context = min(step.shape.context, PROBED_CONTEXT)
    sequences = max(1, min(round(step.training.batch_tokens), PROBED_BATCH_TOKENS) // context)
    return context, sequences * context


def _machine_key(step: Step) -> str:
    model = cpuinfo_line("model name") or platform.processor()
    what = [model, version("torch"), step.shape.vocab, *probed_batch(step)]
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _probe(step: Step) -> Throughput:
    import torch

    from sweeps.distill.generation.generated_text import AT_ONCE
    from sweeps.distill.generation.sampling import uniform_numbers, write
    from sweeps.distill.loss import batch_loss
    from sweeps.model.decoder import Decoder
    from sweeps.model.device import keep_freed_memory

    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    context, tokens = probed_batch(step)
    blocks = torch.randint(step.shape.vocab, (tokens // context, context + 1))
    prompt = max(1, context // 4)
    flops, training, inference, writing, texts = [], [], [], [], []
    for params in PROBED_PARAMS:
        model = Decoder(resized(step.shape, params, context))
        model.initialize(0)

        def train(model: Decoder = model) -> None:
            batch_loss(model, blocks, step.training).backward()

        def infer(model: Decoder = model) -> None:
            with torch.no_grad():
                model(blocks[:, :-1])

        def go_on(after: Tensor, model: Decoder = model) -> None:
            write([model], after, uniform_numbers(len(after), context + 1 - prompt, 0))

        flops.append(model.shape.forward_flops)
        training.append(_seconds(train) / tokens * 1.15)  # the optimizer's share
        inference.append(_seconds(infer) / tokens)
        writing.append(_seconds(partial(go_on, blocks[:, :prompt])) / tokens)
        many = _seconds(partial(go_on, blocks[:1, :prompt].expand(AT_ONCE, -1)))
        texts.append(many / (AT_ONCE * context))
    torch.set_num_threads(threads)
    return Throughput(flops, training, inference, writing, texts)


def resized(shape: ModelShape, params: float, context: int) -> ModelShape:
    """Return a shape of about ``params`` parameters for a shorter context, otherwise like ``shape``."""
    aspect_ratio = max(8.0, shape.width / shape.layers)
    return shape_for(params, vocab=shape.vocab, context=context, aspect_ratio=aspect_ratio)


def _seconds(work: Callable[[], None]) -> float:
    """CPU seconds that ``work`` takes: those of a core to itself, whatever else runs here at the moment."""
    work()
    done, started, began = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - began < PROBE_SECONDS:
        work()
        done += 1
    return (time.process_time() - started) / done
