"""Memory model of steps against PyTorch's allocator and resident memory.

    python benchmarks/memory_model.py [--resident]

Each row is a training step on a CPU: peak bytes of tensors while a run is made, takes four steps and is
evaluated, as PyTorch's profiler counts them, and what the model of memory expects without process and
checkpoint. With ``--resident`` instead the peak of resident memory of a child process, and what is expected
with the memory that it had after its imports. The shares of memory between tensors were set by the rows with
even numbers (``set``); the others were not looked at for them (``held out``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from sweeps.dag.kind import StepKind
from sweeps.dag.ladder import shape_for
from sweeps.dag.step import Step
from sweeps.distill.targets import Online
from sweeps.estimate.memory.memory import MemoryParts, memory_parts
from sweeps.model.chunked_loss import logits_fit
from sweeps.model.decoder import PRECISIONS, Decoder
from sweeps.model.device import keep_freed_memory
from sweeps.model.frozen import FrozenBody
from sweeps.model.heldout import heldout_loss
from sweeps.model.layout import Layout
from sweeps.spec.corpus import Corpus
from sweeps.spec.method.method import Method
from sweeps.spec.spec import Training
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Case:
    """One configuration."""

    params: float
    vocab: int = 512
    context: int = 128
    batch: int = 2048
    precision: str = "fp32"
    teacher: float | None = None
    pieces: int = 1
    divergence: str = "forward-kl"
    compile: bool = False
    recompute: bool = False

    @property
    def layout(self) -> Layout:
        micro = self.batch / self.pieces if self.pieces > 1 else None
        return Layout(micro_batch_tokens=micro, recompute=self.recompute)

    def step(self, params: float | None = None) -> Step:
        """Return a step of this configuration, or of its teacher."""
        shape = shape_for(params or self.params, vocab=self.vocab, context=self.context, aspect_ratio=32)
        training = Training(batch_tokens=self.batch, precision=self.precision, compile=self.compile)
        teaches = self.teacher if params is None else None
        return Step(
            kind=StepKind.DISTILL if teaches else StepKind.PRETRAIN,
            shape=shape,
            aspect_ratio=32,
            steps=1000,
            seed=0,
            data_seed=0,
            half=None,
            corpus=Corpus(vocab=self.vocab, context=self.context),
            corpus_fingerprint="none",
            training=training,
            teacher=self.step(teaches) if teaches else None,
            method=Method(divergence=self.divergence) if teaches else None,
        )


CASES = (
    Case(params=13e3, batch=1024),
    Case(params=107e3),
    Case(params=107e3, precision="bf16"),
    Case(params=400e3, batch=4096),
    Case(params=400e3, precision="bf16"),
    Case(params=1e6, context=512, batch=4096),
    Case(params=1e6, vocab=4096, context=256),
    Case(params=1e6, vocab=32_768, context=256),
    Case(params=1e6, vocab=32_768, context=256, precision="bf16"),
    Case(params=3e6, batch=512),
    Case(params=10e6, vocab=4096, context=256, batch=512, precision="bf16"),
    Case(params=400e3, pieces=4),
    Case(params=3e6, vocab=8192, batch=4096, pieces=4),
    Case(params=107e3, teacher=400e3),
    Case(params=22e3, vocab=4096, batch=1024, teacher=107e3, precision="bf16"),
    Case(params=107e3, vocab=8192, teacher=400e3),
    Case(params=107e3, teacher=400e3, divergence="reverse-kl"),
    Case(params=107e3, teacher=3e6, vocab=32_768, precision="bf16"),
    Case(params=400e3, vocab=2048, teacher=1e6, pieces=2),
    Case(params=107e3, compile=True),
    Case(params=107e3, teacher=400e3, precision="bf16", compile=True),
    Case(params=50e3, batch=4096, context=64),
    Case(params=200e3, batch=8192),
    Case(params=200e3, vocab=2048, batch=4096, precision="bf16"),
    Case(params=700e3, batch=2048, context=256),
    Case(params=700e3, vocab=8192, batch=1024),
    Case(params=2e6, batch=1024),
    Case(params=2e6, vocab=16384, context=256, batch=2048),
    Case(params=2e6, vocab=2048, batch=4096, context=512, precision="bf16"),
    Case(params=5e6, vocab=4096, batch=1024, context=256),
    Case(params=5e6, vocab=32768, batch=1024, context=256, precision="bf16"),
    Case(params=10e6, vocab=8192, batch=512),
    Case(params=20e6, vocab=8192, batch=256, context=128),
    Case(params=1e6, batch=8192, pieces=4),
    Case(params=2e6, batch=4096, context=256, recompute=True),
    Case(params=50e3, vocab=2048, batch=2048, teacher=1e6),
    Case(params=200e3, vocab=4096, batch=2048, teacher=700e3, divergence="reverse-kl"),
    Case(params=400e3, vocab=16384, batch=1024, teacher=2e6, precision="bf16"),
    Case(params=1e6, vocab=2048, batch=2048, teacher=5e6, context=256),
    Case(params=200e3, batch=4096, compile=True),
    Case(params=50e3, vocab=1024, teacher=400e3, compile=True),
)


def work(case: Case) -> None:
    """Make a run of ``case``, take some steps, and evaluate it."""
    step = case.step()
    recipe = RunRecipe(shape=step.shape, steps=step.steps, training=step.training, seed=0, method=step.method)
    run = Run(recipe=recipe, layout=case.layout)
    target = _online(step.teacher) if step.teacher else None
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        size = (case.batch // case.context, case.context + 1)
        blocks = torch.randint(case.vocab, size, generator=generator)
        rows = target.rows(blocks[:, :-1], torch.arange(len(blocks))) if target else None
        run.step(blocks, target, rows)
    heldout_loss(run.model, np.zeros(16 * case.context + 1, dtype=np.uint16), context=case.context)


def _online(teacher: Step) -> Online:
    model = Decoder(teacher.shape)
    model.initialize(1)
    model.eval().requires_grad_(False)
    model.precision = PRECISIONS[teacher.precision]
    fit = logits_fit(round(teacher.training.batch_tokens), teacher.shape.vocab)
    return Online(FrozenBody(model) if teacher.training.compile else model, returns_log_probs=fit)


def allocated(case: Case) -> float:
    """Return the peak bytes of tensors during :func:`work`."""
    if case.compile:
        work(case)  # compiled before, not while memory is counted
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work(case)
    events = [
        (each.start_ns(), each.nbytes())
        for each in found.profiler.kineto_results.events()  # type: ignore[union-attr]
        if each.name() == "[memory]"
    ]
    return float(np.cumsum([size for _, size in sorted(events)]).max())


def resident(case: Case) -> dict[str, float]:
    """Return resident bytes of this process before :func:`work`, and at its peak."""
    keep_freed_memory()
    torch.ones(64, 64) @ torch.ones(64, 64)
    before = _status("VmRSS")
    work(case)
    return {"before": before, "peak": _status("VmHWM")}


def _status(name: str) -> float:
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(name))
    return float(line.split()[1]) * 1024


def parts(case: Case) -> MemoryParts:
    """Return the bytes by the model."""
    return memory_parts(case.step(), layout=case.layout)


def in_child(number: int) -> dict[str, float]:
    """Return what :func:`resident` does, of a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(number)], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resident", action="store_true")
    parser.add_argument("--child", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.child is not None:
        sys.stdout.write(json.dumps(resident(CASES[given.child])) + "\n")
        return
    found_name = "resident" if given.resident else "allocated"
    print(f"| configuration | expected MB | {found_name} MB | ratio | constants |")
    print("|---|---|---|---|---|")
    for number, case in enumerate(CASES):
        if given.resident:
            here = in_child(number)
            model, found = here["before"] + parts(case).resident, here["peak"]
        else:
            model, found = parts(case).tensors, allocated(case)
        cells = [f"{model / 1e6:.1f}", f"{found / 1e6:.1f}", f"{model / found:.2f}"]
        use = "held out" if number % 2 else "set"
        print(f"| {_label(case)} | {' | '.join([*cells, use])} |", flush=True)


def _label(case: Case) -> str:
    """Return the fields of ``case`` that are not the usual ones."""
    usual = vars(Case(params=case.params))
    changed = (f"{name} {value}" for name, value in vars(case).items() if value != usual[name])
    return ", ".join([f"{case.params:g}", *changed])


if __name__ == "__main__":
    main()
