"""Are plans that say "P(distilling is better) = 0.8 to 0.9" right in eight or nine of ten? Synthetic sweeps.

    python benchmarks/plan_calibration.py [--sweeps 300] [--draws 100] [--out plans.jsonl] [--first 0]

Every sweep comes from a supervised and an effective-tokens law drawn at random, with seed noise, is fitted
with default settings, and is asked about students of its sizes and up to ten times its largest compute. A
plan is right if one distilled run ends below one directly trained run, both with noise, under the laws that
made the sweep. Plans are pooled by what they said; a line a bin: how many, how often distilling was better,
and the mean of what they said. With ``--out`` every finished sweep is a line of a file: a second call runs
those that are missing, and several at once share the work by ``--first``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from fits import fit
from scaling import EffectiveTokensLaw, Question, SupervisedLaw, plan

BINS = ((0.0, 0.1), (0.1, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.9), (0.9, 1.0 + 1e-9))


def truth(rng: np.random.Generator) -> tuple[SupervisedLaw, EffectiveTokensLaw, float]:
    """Laws around those of the public sweeps, and the noise of a run."""
    gamma = float(np.exp(rng.normal(np.log(0.6), 0.35)))
    slope_N, slope_D = np.exp(rng.normal(np.log(0.3), 0.25, size=2))
    alpha, beta = slope_N / gamma, slope_D / gamma
    share = float(np.exp(rng.normal(-0.7, 0.3)))  # of E, each term at the center
    supervised = SupervisedLaw(
        E=1.6, A=(1.6 * share) ** (1 / gamma) * 3e7**alpha, B=(1.6 * share) ** (1 / gamma) * 1e9**beta,
        alpha=alpha, beta=beta, gamma=gamma,
    )  # fmt: skip
    k, q, eps = np.exp(rng.normal(np.log([1.1, 8.5, 0.015]), [0.35, 0.3, 0.5]))
    return (
        supervised,
        EffectiveTokensLaw(k=k, q=q, eps=eps),
        float(np.exp(rng.uniform(*np.log([0.002, 0.01])))),
    )


def sweep(
    supervised: SupervisedLaw, taught: EffectiveTokensLaw, noise: float, rng: np.random.Generator
) -> pd.DataFrame:
    """20 supervised runs and 40 distillations under four of them."""
    N, D = (
        x.ravel() for x in np.meshgrid(np.geomspace(5e6, 2e8, 5), np.geomspace(2e8, 5e9, 4), indexing="ij")
    )
    loss = supervised.loss(N, D) * np.exp(noise * rng.standard_normal(len(N)))
    alone = pd.DataFrame({"kind": "supervised", "params": N, "tokens": D, "loss": loss})
    picked = [2, 7, 14, 19]
    axes = np.meshgrid(np.geomspace(5e6, 5e7, 5), [5e8, 3e9], picked, indexing="ij")
    N_S, D_S, of = (x.ravel() for x in axes)
    of = of.astype(int)
    L_S = taught.loss(N_S, D_S, loss[of], supervised) * np.exp(noise * rng.standard_normal(len(N_S)))
    second = {"kind": "distillation", "params": N_S, "tokens": D_S, "loss": L_S, "teacher_loss": loss[of]}
    sizes = {"teacher_params": N[of], "teacher_tokens": D[of]}
    return pd.concat([alone, pd.DataFrame(second | sizes)], ignore_index=True)


def answers(seed: int, draws: int) -> list[tuple[float, bool]]:
    """Return what the plans of one sweep said, and whether distilling was better."""
    rng = np.random.default_rng(seed)
    supervised, taught, noise = truth(rng)
    found = fit(sweep(supervised, taught, noise, rng), laws=["effective-tokens"], draws=draws, starts=16)
    told = []
    for size in (1e7, 5e7, 2e8):
        for ratio in (20, 200):
            budget = 6 * size**2 * ratio * rng.uniform(0.5, 2)
            made = plan(Question(student_params=size, budget=budget), found.calibration)
            for way in made.distillations:
                if way.probability is None or way.teacher_tokens is None:
                    continue
                L_T = supervised.loss(way.teacher_params, way.teacher_tokens)
                distilled = float(taught.loss(way.params, way.tokens, L_T, supervised))
                direct = float(supervised.loss(way.direct.params, way.direct.tokens))
                one, other = np.exp(noise * rng.standard_normal(2))
                told.append((float(way.probability), bool(distilled * one < direct * other)))
    return told


def main() -> None:
    """Print how often the plans of every bin were right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=300)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="seed of the first sweep")
    parser.add_argument("--out", type=Path, help="a line for each finished sweep")
    options = parser.parse_args()
    began = time.process_time()
    kept = options.out.read_text().splitlines() if options.out and options.out.exists() else []
    known = {record["seed"]: record["told"] for record in map(json.loads, kept)}
    for seed in range(options.first, options.first + options.sweeps):
        if seed not in known:
            known[seed] = answers(seed, options.draws)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps({"seed": seed, "told": known[seed]}) + "\n")
    told = [each for of_sweep in known.values() for each in of_sweep]
    said, right = (np.array(column, dtype=float) for column in zip(*told, strict=True))
    print(f"{len(known)} sweeps, {len(said)} plans, {time.process_time() - began:.0f} CPU s")
    for low, high in BINS:
        mine = (said >= low) & (said < high)
        if mine.any():
            shown = f"{right[mine].mean():.3f} distilling was better, mean said {said[mine].mean():.3f}"
            print(f"{low:.1f} to {min(high, 1):.1f}: {mine.sum():>6} plans, {shown}")


if __name__ == "__main__":
    main()
