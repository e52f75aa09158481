"""Does the best learning rate stay put as models grow? Held-out loss over peak rate at several widths.

    python benchmarks/learning_rates.py [--tokens 262144] [--seeds 2]

Trains on the King James Bible, about 3 minutes on one core at the defaults. mu-P (simple) promises one
optimum for all widths; the best rate of each width is marked.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from sweeps.dag.ladder import shape_for
from sweeps.data import source_of, tokenize
from sweeps.model.heldout import heldout_loss
from sweeps.spec.spec import Training
from sweeps.train.loop import train
from sweeps.train.recipe import RunRecipe

RATES = (0.0025, 0.005, 0.01, 0.02, 0.04)
SIZES = (13e3, 56e3, 107e3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = tokenize(source_of("kjv"), vocab=512, heldout=0.05, seed=0)
    print("width  " + "  ".join(f"{rate:>8g}" for rate in RATES))
    for size in SIZES:
        shape = shape_for(size, vocab=512, context=128, aspect_ratio=32)
        losses = []
        for rate in RATES:
            rules = Training(learning_rate=rate)
            steps = rules.steps(options.tokens)
            recipes = [
                RunRecipe(shape=shape, steps=steps, training=rules, seed=seed)
                for seed in range(options.seeds)
            ]
            models = [train(recipe, corpus.train) for recipe in recipes]
            runs = [heldout_loss(model, corpus.heldout, context=128).loss for model in models]
            losses.append(float(np.mean(runs)))
        best = int(np.argmin(losses))
        cells = (f"{loss:7.4f}{'*' if k == best else ' '}" for k, loss in enumerate(losses))
        print(f"{shape.width:>5}  " + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
