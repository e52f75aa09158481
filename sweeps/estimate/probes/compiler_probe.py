"""Cost and gain of compiling on this machine: one small step, translated anew, beside plain PyTorch."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sweeps.dag.compile_choice import CompilerCost, table_gain
from sweeps.dag.expand import Dag, Step
from sweeps.data.cache import cache_dir

SECONDS = 0.5
"""CPU seconds for which each kind of step is timed, in each of three rounds."""
MOST_SECONDS = 300
"""Seconds after which a machine counts as too busy to be measured."""


def probed_step(dag: Dag) -> Step | None:
    """Return the smallest step that our own loop trains, whose kind is measured; None if it trains none."""
    trained = [step for step in dag.steps if step.kind.trains and not step.trainer]
    return min(trained, key=lambda step: step.shape.params, default=None)


def compiler_cost(step: Step) -> CompilerCost | None:
    """Return cost and gain of compiling steps like ``step``; None on a machine that cannot compile.

    Measured once on a kind of machine (half a minute), then remembered; on one that is too busy the table's.
    """
    path = _memo(step)
    try:
        return _read(path)
    except (OSError, ValueError, TypeError):
        pass
    try:
        cost = _measure_apart(step)
    except subprocess.TimeoutExpired:
        return CompilerCost()
    with suppress(OSError):  # a measurement that cannot be cached is repeated
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(asdict(cost) if cost else {}))
        scratch.replace(path)
    return cost


def remembered_cost(step: Step) -> CompilerCost | None:
    """Return cost and gain of compiling if they were measured here before; nothing is measured."""
    with suppress(OSError, ValueError, TypeError):
        return _read(_memo(step))
    return None


def _memo(step: Step) -> Path:
    return cache_dir() / "throughput" / f"compiler-{_key(step)}.json"


def _read(path: Path) -> CompilerCost | None:
    found = json.loads(path.read_text())
    return CompilerCost(**found) if found else None


def _key(step: Step) -> str:
    from sweeps.model.device import instruction_sets, processor

    rules = step.training.precision, step.training.batch_tokens
    what = [processor(), instruction_sets(), version("torch"), step.shape, *rules]
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _measure_apart(step: Step) -> CompilerCost | None:
    """Measure in a process with an empty cache, so that translating takes what it takes.

    Raises:
        TimeoutExpired: if the machine is too busy.
    """
    with tempfile.TemporaryDirectory(prefix="distlaw-probe-") as folder:
        place = {"DISTLAW_CACHE": folder, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "sweeps.estimate.probes.compiler_probe"],
                input=json.dumps(step.as_json()),
                env=os.environ | place | {"OMP_NUM_THREADS": "1"},
                capture_output=True, text=True, check=True, timeout=MOST_SECONDS,
            )  # fmt: skip
            found = json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            raise
        except (subprocess.SubprocessError, OSError, ValueError, IndexError):
            return None
    factor = found["gain"] / table_gain(step.shape.params, step.training.precision)
    return CompilerCost(translation_seconds=found["translation"], gain_factor=factor, measured=True)


def measure(step: Step) -> dict[str, float]:
    """Return CPU seconds of translating a step in this process, and how much faster it is then."""
    import statistics
    import time

    import torch

    from sweeps.model.device import keep_freed_memory
    from sweeps.train.recipe import RunRecipe
    from sweeps.train.run import Run

    keep_freed_memory()
    torch.set_num_threads(1)
    size = (round(step.training.batch_tokens / step.shape.context), step.shape.context + 1)
    blocks = torch.zeros(size, dtype=torch.long)

    def run(**rules: Any) -> Run:
        training = step.training.model_copy(update=rules)
        return Run(recipe=RunRecipe(shape=step.shape, steps=10**9, training=training, seed=0))

    def seconds(run: Run) -> float:
        done, began = 0, time.process_time()
        while not done or time.process_time() - began < SECONDS:
            run.step(blocks, None, None)
            done += 1
        return (time.process_time() - began) / done

    plain, compiled = run(compile=False), run(compile=True)
    before = os.times()
    compiled.step(blocks, None, None)
    after = os.times()
    translation = sum(after[:4]) - sum(before[:4])  # of the C++ compiler too
    seconds(plain)
    ratios = [seconds(plain) / seconds(compiled) for _ in range(3)]
    return {"translation": translation, "gain": statistics.median(ratios)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Step.from_json(json.load(sys.stdin)))) + "\n")
