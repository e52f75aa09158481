"""Tokens a second of a student whose teacher is online, cached, or not there: one core, CPU time.

    python benchmarks/cached_speed.py [--precision bf16] [--students 8]

Sequences of 128, 16 at a time. The five ways take turns in every round; medians over rounds. "In all" adds a
student's share of writing the cache, where so many students read it. About 2 minutes a pair.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from sweeps.dag.ladder import shape_for
from sweeps.data.batches import Batches
from sweeps.distill.caches.logit_format import Full, TopK
from sweeps.distill.caches.shard_cache import ShardCache
from sweeps.distill.targets import Cached, Online
from sweeps.distill.teacher import distributions
from sweeps.model.decoder import PRECISIONS, Decoder
from sweeps.model.device import keep_freed_memory
from sweeps.spec.method.method import Method
from sweeps.spec.method.run_views import TargetReader
from sweeps.spec.spec import Training
from sweeps.store.store import Store
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

CONTEXT, BATCH, STEPS = 128, 16, 40
ROUNDS, SECONDS = 7, 0.4
PAIRS = [(1e6, 100e3, 512), (3e6, 10e3, 512), (1e6, 100e3, 4096)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", default="bf16", choices=sorted(PRECISIONS))
    parser.add_argument("--students", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for teacher, student, vocab in PAIRS:
        compare(teacher, student, vocab, options.precision, options.students)


def compare(teacher_size: float, student_size: float, vocab: int, precision: str, students: int) -> None:
    """Print the rates of one pair of sizes."""
    rules = Training(batch_tokens=CONTEXT * BATCH, precision=precision)
    tokens = np.random.default_rng(0).integers(0, vocab, STEPS * BATCH * CONTEXT + 1).astype(np.uint16)
    data = Batches(tokens, context=CONTEXT, batch=BATCH, seed=0)
    teacher = Decoder(shape_for(teacher_size, vocab=vocab, context=CONTEXT, aspect_ratio=32))
    teacher.initialize(0)
    teacher.precision = PRECISIONS[precision]
    online = Online(teacher.eval().requires_grad_(False))
    shape = shape_for(student_size, vocab=vocab, context=CONTEXT, aspect_ratio=32)
    with tempfile.TemporaryDirectory(prefix="distlaw-") as folder:
        writing, targets = {}, {"supervised": None, "online": online}
        for name, how in {"cached": Full(vocab), "top-32": TopK(vocab, 32)}.items():
            cache = ShardCache(Store(folder), name, how, CONTEXT, data.seen(STEPS))
            started = time.process_time()
            logits = cache.ready(lambda numbers, how=how: distributions(online, data, numbers, how))
            writing[name] = (time.process_time() - started) / (STEPS * BATCH * CONTEXT)
            targets[name] = Cached(how, logits)
        ways = {name: stepper(shape, rules, data, target) for name, target in targets.items()}
        rounds = [{name: seconds_of(step) for name, step in ways.items()} for _ in range(ROUNDS)]
    print(f"{teacher_size:.0e} -> {student_size:.0e}, V = {vocab}, {precision}")
    each = {name: median(taken[name] for taken in rounds) / (BATCH * CONTEXT) for name in ways}
    for name, seconds in each.items():
        ratio = median(taken["online"] / taken[name] for taken in rounds)
        line = f"  {name:12} {1 / seconds:9,.0f} tokens/s  {ratio:5.2f}x online"
        if name in writing:
            whole = seconds + writing[name] / students
            line += f"; in all, {students} students: {1 / whole:9,.0f}  {each['online'] / whole:5.2f}x"
        print(line, flush=True)


def stepper(shape: object, rules: Training, data: Batches, target: TargetReader | None) -> Callable[[], None]:
    """Takes the next optimizer step whenever called."""
    run = Run(
        recipe=RunRecipe(
            shape=shape, steps=10**6, training=rules, seed=0, method=Method() if target else None
        )
    )

    def step() -> None:
        numbers = data.numbers(run.done % STEPS)
        blocks = data.read(numbers)
        run.step(blocks, target, target.rows(blocks[:, :-1], numbers) if target else None)

    return step


def seconds_of(step: Callable[[], None]) -> float:
    """CPU seconds of a step."""
    step()
    done, started = 0, time.process_time()
    while (elapsed := time.process_time() - started) < SECONDS:
        step()
        done += 1
    return elapsed / done


if __name__ == "__main__":
    main()
