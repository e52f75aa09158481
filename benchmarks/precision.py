"""Does a law care how its runs were computed?

    python benchmarks/precision.py [--params 22k] [--tokens 524288] [--seeds 8]

The same runs, on the King James Bible, in fp32, in bf16 and compiled, paired by seed: initialization and
order of the data are equal, and only rounding differs. Held-out losses are computed in fp32. A way of
computing is fit for laws where its mean difference from fp32 is within its own standard error over the pairs.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
import torch

from scaling.units import parse_quantity
from sweeps.dag.ladder import shape_for
from sweeps.data import source_of, tokenize
from sweeps.model.device import processor
from sweeps.model.heldout import heldout_loss
from sweeps.spec.spec import Training
from sweeps.train.loop import train
from sweeps.train.recipe import RunRecipe

WAYS: dict[str, dict[str, object]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "fp32, compiled": {"compile": True},
    "bf16, compiled": {"precision": "bf16", "compile": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", default="22k")
    parser.add_argument("--tokens", default="524288")
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = tokenize(source_of("kjv"), vocab=512, heldout=0.05, seed=0)
    shape = shape_for(parse_quantity(options.params, "--params"), vocab=512, context=128, aspect_ratio=32)
    tokens = parse_quantity(options.tokens, "--tokens")
    losses: dict[str, list[float]] = {way: [] for way in WAYS}
    seconds = dict.fromkeys(WAYS, 0.0)
    for seed in range(options.seeds):
        for way, rules in WAYS.items():
            training = Training(**rules)
            recipe = RunRecipe(shape=shape, steps=training.steps(tokens), training=training, seed=seed)
            began = time.process_time()
            model = train(recipe, corpus.train)
            seconds[way] += time.process_time() - began
            losses[way].append(heldout_loss(model, corpus.heldout, context=128).loss)
        print(f"seed {seed}: " + ", ".join(f"{way} {own[-1]:.4f}" for way, own in losses.items()), flush=True)
    reference = np.array(losses["fp32"])
    print(
        f"{shape.params:,} parameters, {tokens:,.0f} tokens, {options.seeds} seeds; {processor()}, "
        f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    for way, own in losses.items():
        difference = np.array(own) - reference
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        print(
            f"  {way:15s} loss {np.mean(own):.4f}, sd over seeds {np.std(own, ddof=1):.4f}; minus fp32 "
            f"{difference.mean():+.4f} +- {error:.4f}; {seconds[way] / options.seeds:.1f} s CPU a run"
        )


if __name__ == "__main__":
    main()
