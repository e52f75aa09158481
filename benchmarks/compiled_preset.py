"""CPU time that ``compile: auto`` saves over a whole preset, from a sample of its steps.

    python benchmarks/compiled_preset.py [PRESET] [--rounds 3]

For every size of the preset (default ``permissive``) an optimizer step is timed, supervised and distilled,
plain and compiled, and so is a forward pass of every teacher. All take a turn in every round, in one process
of one thread, by CPU time. Translation is timed with an empty cache: tracing, compiling, comparing with plain
PyTorch, and the compiler's own processes. What is not compiled (the held-out loss of every run) is timed too.

The sweep's total is then the sum over its steps of tokens times seconds a token, teachers' passes shared as
the scheduler shares them, plus each translation once. Every round gives a ratio of both totals.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from training_speed import batch, load, online, ours, used

import sweeps
from scaling.costs.flops import ModelShape
from scaling.units import format_number
from sweeps.api import LoadedSweep
from sweeps.dag.step import Step
from sweeps.execute.teacher_sharing import group_into_cohorts
from sweeps.model.decoder import Decoder
from sweeps.model.device import keep_freed_memory, processor
from sweeps.model.heldout import heldout_loss
from sweeps.spec.method.method import Method
from sweeps.spec.spec import Training
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

WINDOW = 0.4
"""CPU seconds for which each contestant runs in a round."""
SLOTS = 2
"""Jobs side by side, for which the scheduler groups students of one teacher."""
PARTS = ("supervised", "distilled", "teacher", "held-out loss")
Work = Callable[[], object]


@dataclass
class Sample:
    """Seconds of one part at one size, a way: plain, or compiled where the part is."""

    part: str
    shape: ModelShape
    tokens: float
    """Tokens of this part and size in the whole sweep."""
    works: dict[bool, Work]
    """Work on one batch, by whether it is compiled."""
    translation: float = 0.0
    rates: dict[bool, list[float]] = field(default_factory=dict)
    """Seconds a token in each round."""

    def seconds(self, compiled: bool, number: int) -> float:
        """Return seconds of the whole sweep's tokens, as a round measured them."""
        return self.tokens * self.rates[compiled and compiled in self.rates][number]


def tokens_by_part(loaded: LoadedSweep) -> dict[tuple[str, ModelShape], float]:
    """Return the tokens of every part and size of a sweep; teachers' as the scheduler shares their passes."""
    found: dict[tuple[str, ModelShape], float] = {}

    def add(part: str, step: Step, tokens: float) -> None:
        found[part, step.shape] = found.get((part, step.shape), 0.0) + tokens

    heldout = loaded.resolved.text.size.heldout_tokens
    for step in loaded.dag.steps:
        add("distilled" if step.teacher else "supervised", step, step.tokens_to_train)
        add("held-out loss", step, heldout if step.kind.is_run else 0)
    for cohort in group_into_cohorts(loaded.dag.steps, SLOTS, lambda step: step.flops_to_spend):
        if teacher := cohort[0].teacher:
            add("teacher", teacher, max(step.tokens_to_teach for step in cohort))
    return {key: found[key] for key in sorted(found, key=lambda key: (PARTS.index(key[0]), key[1].params))}


def works(part: str, of: ModelShape, training: Training) -> dict[bool, Work]:
    """Return the work on a batch, plain and where it is ever compiled, compiled."""
    blocks = batch(of, round(training.batch_tokens / of.context))
    if part == "held-out loss":
        return {False: evaluation(of, blocks)}
    build = {"supervised": supervised, "distilled": distilled, "teacher": teacher}[part]
    return {way: build(of, blocks, training.model_copy(update={"compile": way})) for way in (False, True)}


def supervised(of: ModelShape, blocks: Tensor, training: Training) -> Work:
    """An optimizer step on the data."""
    return ours(of, blocks, precision=training.precision, compile=training.compile)


def distilled(of: ModelShape, blocks: Tensor, training: Training) -> Work:
    """An optimizer step on a teacher's distributions, which are there; of a teacher of any size."""
    plain = training.model_copy(update={"compile": False})
    target = online(of, plain)
    rows = target.rows(blocks[:, :-1], torch.arange(len(blocks)))
    run = Run(recipe=RunRecipe(shape=of, steps=10**9, training=training, seed=0, method=Method()))
    return partial(run.step, blocks, target, rows)


def teacher(of: ModelShape, blocks: Tensor, training: Training) -> Work:
    """A forward pass of a teacher."""
    return partial(online(of, training).rows, blocks[:, :-1], torch.arange(len(blocks)))


def evaluation(of: ModelShape, blocks: Tensor) -> Work:
    """A held-out loss, in fp32."""
    model = Decoder(of)
    model.initialize(0)
    text = blocks.flatten().numpy()[: blocks[:, 1:].numel() + 1]
    return partial(heldout_loss, model, text, context=of.context)


def measure(samples: list[Sample], batch_tokens: float, rounds: int) -> None:
    """Translate what is compiled, then time all in turns."""
    for sample in samples:
        for compiled, work in sample.works.items():
            began = used()
            work()
            if compiled:
                sample.translation = used() - began
                print(f"  {sample.part} {format_number(sample.shape.params)}: {sample.translation:.1f} s")
            work()
            sample.rates[compiled] = []
    for _ in range(rounds):
        for sample in samples:
            for compiled, work in sample.works.items():
                began, done = time.process_time(), 0
                while (taken := time.process_time() - began) < WINDOW:
                    work()
                    done += 1
                sample.rates[compiled].append(taken / done / batch_tokens)


def report(samples: list[Sample], rounds: int) -> None:
    """Print a row for each part and size, then both totals of the sweep and their ratio."""
    print("part, size, tokens; CPU seconds of the sweep plain and compiled; ratio, its range; translation")
    for sample in samples:
        plain, compiled = ([sample.seconds(way, n) for n in range(rounds)] for way in (False, True))
        size, tokens = format_number(sample.shape.params), format_number(sample.tokens)
        print(
            f"  {sample.part:14s} {size:>6s} {tokens:>6s} "
            f"{statistics.median(plain):7.0f} {statistics.median(compiled):7.0f}  "
            f"{ratio(plain, compiled)} {sample.translation:6.1f}"
        )
    translation = sum(sample.translation for sample in samples)
    totals = [[sum(s.seconds(way, n) for s in samples) for n in range(rounds)] for way in (False, True)]
    plain, compiled = totals
    for name, extra in (("translated before", 0.0), ("translation included", translation)):
        print(
            f"{name}: {statistics.median(plain):,.0f} s plain, {statistics.median(compiled):,.0f} + "
            f"{extra:,.0f} s compiled; {ratio(plain, [each + extra for each in compiled])}"
        )


def ratio(plain: list[float], compiled: list[float]) -> str:
    """Return the median ratio of rounds, and the range."""
    each = [a / b for a, b in zip(plain, compiled, strict=True)]
    return f"x{statistics.median(each):.2f} [{min(each):.2f}, {max(each):.2f}]"


def main() -> None:
    """Read the arguments, measure with an empty cache, and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", nargs="?", default="permissive")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    loaded = sweeps.load(given.preset, ["training.compile=auto"], read_text=False)
    training = loaded.spec.training
    not_compiled = [choice for choice in loaded.resolved.compile_choices if not choice.compiles]
    print(f"{processor()}, torch {torch.__version__}, {os.cpu_count()} cores, {load()}")
    for choice in not_compiled:
        print(f"not compiled under auto, and counted as if it were: {choice}")
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="distlaw-speed-") as folder:
        os.environ |= {"DISTLAW_CACHE": folder, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}
        print("CPU seconds of translation:")
        samples = [
            Sample(part, shape, tokens, works(part, shape, training))
            for (part, shape), tokens in tokens_by_part(loaded).items()
        ]
        measure(samples, training.batch_tokens, given.rounds)
    report(samples, given.rounds)
    print(load())


if __name__ == "__main__":
    main()
