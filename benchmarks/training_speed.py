"""Speed of training, beside a plain transformers loop.

    python benchmarks/training_speed.py [PART ...]

Parts: supervised, distilled, start, loss; all if none is named. One process, one thread, sequence 128. Every
contestant of a table takes a turn in every round, so that they share the machine's moods; times are CPU time
of this process, which other load disturbs less than wall time. A cell is the median over rounds of tokens/s,
with the median and range over rounds of its ratio to the first row. Models of transformers are Qwen3 of the
same shape with AdamW at its defaults; both sides have glibc keep its memory, which helps both.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from scaling.costs.flops import ModelShape
from sweeps.dag.ladder import shape_for
from sweeps.distill.targets import Online
from sweeps.model.decoder import Decoder
from sweeps.model.device import keep_freed_memory, processor
from sweeps.model.frozen import FrozenBody
from sweeps.model.model_files import qwen3_config
from sweeps.spec.method.method import Method
from sweeps.spec.spec import Training
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run

CONTEXT = 128
ROUNDS, SECONDS = 5, 0.5
Step = Callable[[], object]


def shape(params: float, vocab: int) -> ModelShape:
    return shape_for(params, vocab=vocab, context=CONTEXT, aspect_ratio=32)


def batch(of: ModelShape, rows: int) -> Tensor:
    return torch.randint(of.vocab, (rows, CONTEXT + 1), generator=torch.Generator().manual_seed(0))


def theirs(of: ModelShape, blocks: Tensor, *, autocast: bool, teacher: ModelShape | None = None) -> Step:
    """A step of a plain transformers loop, with a teacher and TRL's loss if one is given."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    def load(what: ModelShape) -> torch.nn.Module:
        return Qwen3ForCausalLM(Qwen3Config(**qwen3_config(what)))

    model, guide = load(of), load(teacher).eval() if teacher else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs, labels = blocks[:, :-1], blocks[:, 1:]
    divergence = forward_kl() if teacher else None

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(input_ids=inputs, use_cache=False).logits
            if guide:
                with torch.no_grad():
                    wanted = guide(input_ids=inputs, use_cache=False).logits
        if divergence:
            loss = divergence(logits.float(), wanted.float())
        else:
            loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def forward_kl() -> Callable[[Tensor, Tensor], Tensor]:
    """Loss of student and teacher logits: TRL's if it is installed, else a plain implementation."""
    if find_spec("trl"):
        from trl.experimental.gkd import GKDTrainer

        return partial(GKDTrainer.generalized_jsd_loss, beta=0.0)

    def plain(logits: Tensor, wanted: Tensor) -> Tensor:
        both = logits.log_softmax(-1), wanted.log_softmax(-1)
        return F.kl_div(*both, reduction="none", log_target=True).sum() / logits.shape[:-1].numel()

    return plain


def ours(
    of: ModelShape, blocks: Tensor, teacher: ModelShape | None = None, students: int = 1, **rules: object
) -> Step:
    """A step of our own runs, side by side on one batch."""
    training = Training(batch_tokens=blocks[:, 1:].numel(), **rules)
    method = Method() if teacher else None
    recipes = [
        RunRecipe(shape=of, steps=10**9, training=training, seed=seed, method=method)
        for seed in range(students)
    ]
    runs = [Run(recipe=recipe) for recipe in recipes]
    target = online(teacher, training) if teacher else None
    numbers = torch.arange(len(blocks))

    def step() -> None:
        rows = target.rows(blocks[:, :-1], numbers) if target else None
        for run in runs:
            run.step(blocks, target, rows)

    return step


def online(of: ModelShape, training: Training) -> Online:
    model = Decoder(of)
    model.initialize(1)
    model.eval().requires_grad_(False)
    model.precision = torch.bfloat16 if training.precision == "bf16" else torch.float32
    return Online(FrozenBody(model) if training.compile else model, returns_log_probs=True)


def compare(contestants: dict[str, Callable[[], Step]], tokens: dict[str, int], flops: float) -> None:
    """Print a table: the first contestant is what the others are compared with."""
    steps, first = {}, {}
    for name, build in contestants.items():
        began = used()
        steps[name] = build()
        for _ in range(3):
            steps[name]()
        first[name] = used() - began
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            began, done = time.process_time(), 0
            while (taken := time.process_time() - began) < SECONDS:
                step()
                done += 1
            rates[name].append(done * tokens[name] / taken)
    reference = next(iter(rates.values()))
    peak = matmul_rate(torch.bfloat16)
    for name, own in rates.items():
        ratios = [a / b for a, b in zip(own, reference, strict=True)]
        rate = statistics.median(own)
        print(
            f"  {name:32s} {rate / 1e3:8.1f}k tok/s  x{statistics.median(ratios):5.2f} "
            f"[{min(ratios):.2f}, {max(ratios):.2f}]  {rate * flops / 1e9:5.0f} GFLOP/s, "
            f"{100 * rate * flops / peak:2.0f} % of bf16 matmul  first steps {first[name]:.1f} s",
            flush=True,
        )


def matmul_rate(dtype: torch.dtype) -> float:
    """FLOP/s of one core at multiplying square matrices, by CPU time: the best of a few windows."""
    a, b = torch.randn(2, 1024, 1024).to(dtype)
    best = 0.0
    for _ in range(8):
        began = time.process_time()
        for _ in range(10):
            a @ b
        best = max(best, 10 * 2 * 1024**3 / (time.process_time() - began))
    return best


def used() -> float:
    """CPU seconds of this process and of the compilers it ran."""
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def supervised(rows: int) -> None:
    for params, vocab in ((10e3, 512), (100e3, 512), (1e6, 512), (100e3, 4096), (1e6, 4096)):
        of = shape(params, vocab)
        print(
            f"supervised, {of.params:,} parameters, V = {vocab}, {rows} x {CONTEXT} tokens a step; {load()}"
        )
        blocks = batch(of, rows)
        contestants = {
            "transformers fp32": partial(theirs, of, blocks, autocast=False),
            "transformers bf16 autocast": partial(theirs, of, blocks, autocast=True),
            "distlaw fp32": partial(ours, of, blocks),
            "distlaw bf16": partial(ours, of, blocks, precision="bf16"),
            "distlaw fp32, compiled": partial(ours, of, blocks, compile=True),
            "distlaw bf16, compiled": partial(ours, of, blocks, precision="bf16", compile=True),
        }
        compare(contestants, dict.fromkeys(contestants, blocks[:, 1:].numel()), of.training_flops(1))


def distilled(rows: int) -> None:
    for of, teacher in ((shape(100e3, 512), shape(1e6, 512)), (shape(10e3, 512), shape(3e6, 512))):
        print(
            f"distilled, {teacher.params:,} -> {of.params:,} parameters, V = 512, "
            f"{rows} x {CONTEXT} tokens; {load()}"
        )
        blocks = batch(of, rows)
        quick = {"precision": "bf16", "compile": True}
        loop = "transformers, TRL" if find_spec("trl") else "transformers"
        contestants = {
            f"{loop} fp32": partial(theirs, of, blocks, autocast=False, teacher=teacher),
            f"{loop} bf16 autocast": partial(theirs, of, blocks, autocast=True, teacher=teacher),
            "distlaw fp32": partial(ours, of, blocks, teacher),
            "distlaw bf16, compiled": partial(ours, of, blocks, teacher, **quick),
            "distlaw fp32, 8 students": partial(ours, of, blocks, teacher, 8),
            "distlaw compiled, 8 students": partial(ours, of, blocks, teacher, 8, **quick),
        }
        own = blocks[:, 1:].numel()
        tokens = {name: own * (8 if "8 students" in name else 1) for name in contestants}
        compare(contestants, tokens, of.training_flops(1) + teacher.forward_flops)


START = """
import sys
import torch
torch.set_num_threads(1)
from sweeps.dag.ladder import shape_for
from sweeps.train.recipe import RunRecipe
from sweeps.train.run import Run
from sweeps.spec.spec import Training
training = Training(batch_tokens=512, **eval(sys.argv[1]))
shape = shape_for(13e3, vocab=512, context=128, aspect_ratio=32)
run = Run(recipe=RunRecipe(shape=shape, steps=9, training=training, seed=0))
run.step(torch.zeros(4, 129, dtype=torch.int64), None, None)
heavy = {"transformers", "ray", "optuna", "pandas", "datasets"} & set(sys.modules)
print(f"of them {run.seconds:.2f} s in the step; loaded without need: {sorted(heavy) or 'nothing'}")
"""


def start(_: int) -> None:
    """Measure five times the seconds from the start of a process to the end of its first optimizer step."""
    for rules in ({}, {"precision": "bf16", "compile": True}):
        walls = []
        for _ in range(5):
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", START, repr(rules)], capture_output=True, text=True, check=True
            )
            walls.append(time.perf_counter() - began)
        print(
            f"start to first step, {rules or 'plain'}: wall {min(walls):.1f} to {max(walls):.1f} s, "
            f"{done.stdout.strip()}; {load()}"
        )


LOSS = """
import sys, time, torch
from torch.nn import functional as F
from sweeps.model import chunked_loss
from sweeps.model.compiling.compiled import compile_function
from sweeps.model.device import keep_freed_memory
from sweeps.distill.divergences import forward_kl, guided_loss
from sweeps.model.log_probs import log_probabilities
torch.set_num_threads(1)
keep_freed_memory()
how, dtype = sys.argv[1], getattr(torch, sys.argv[2])
draw = torch.Generator().manual_seed(0)
def random(rows, width, scale=1.0):
    return (torch.randn(rows, width, generator=draw) * scale).to(dtype)
features, weight = random(4096, 512).requires_grad_(), random(32768, 512, 512**-0.5).requires_grad_()
taught, head = random(4096, 1024), random(32768, 1024, 1024**-0.5)
labels = torch.zeros(4096, dtype=torch.long)
def per_token(logits, taught):
    return forward_kl(log_probabilities(F.linear(taught, head)), log_probabilities(logits))
def at_once(logits, taught):
    return guided_loss(logits, log_probabilities(F.linear(taught, head)), labels[: len(logits)])
if how == "compiled":
    per_token = compile_function(at_once)
    size = chunked_loss.LOGITS_PER_CHUNK if dtype == torch.bfloat16 else chunked_loss.FP32_LOGITS_PER_CHUNK
    block = size // 32768
    logits = torch.zeros(block, 32768, dtype=dtype, requires_grad=True)
    per_token(logits, taught[:block]).sum().backward()
    del logits
if how == "plain":
    chunked_loss.MAX_FULL_LOGITS = 2**40
torch.randn(64, 512).to(dtype) @ torch.randn(512, 64).to(dtype)
def most():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20
before, began = most(), time.process_time()
loss = chunked_loss.mean_loss(per_token, features, weight, taught)
loss.backward()
print(loss.item(), time.process_time() - began, most() - before)
"""


def loss(_: int) -> None:
    """Linear and forward KL, student 512 and teacher 1024 wide, V = 32,768, 4,096 tokens; a process each."""
    kinds = (("plain", "float32"), *product(("blocks", "compiled"), ("float32", "bfloat16")))
    found: dict[tuple[str, str], list[list[float]]] = {kind: [] for kind in kinds}
    for _ in range(3):
        for kind in kinds:
            done = subprocess.run(
                [sys.executable, "-c", LOSS, *kind], capture_output=True, text=True, check=True
            )
            found[kind].append([float(number) for number in done.stdout.split()])
    exact, reference = (statistics.median(column) for column in list(zip(*found[kinds[0]], strict=True))[:2])
    print(
        f"linear and forward KL, V = 32,768, 4,096 tokens; the gradient of the weight alone is 0.06 GiB in "
        f"fp32; {load()}"
    )
    for kind, runs in found.items():
        value, seconds, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        print(
            f"  {' '.join(kind):18s} {seconds:5.1f} s CPU, x{reference / seconds:.2f}  peak {memory:.2f} GiB "
            f"above before  loss off by {abs(value / exact - 1):.0e}"
        )


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


def main() -> None:
    parts = {"supervised": supervised, "distilled": distilled, "start": start, "loss": loss}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--rows", type=int, default=16, help="sequences of a batch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rates = ", ".join(
        f"{name} {matmul_rate(dtype) / 1e9:.0f}"
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    )
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{processor()}; {versions}; matmul GFLOP/s: {rates}; {os.cpu_count()} cores, {load()}")
    for part in options.parts or parts:
        parts[part](options.rows)


if __name__ == "__main__":
    main()
