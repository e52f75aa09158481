"""Errors on larger runs of supervised fits with gamma free, gamma = 1, and gamma pulled by left-out blocks.

    python benchmarks/gamma_choice.py DIR [--samples 3]

DIR holds supervised sweeps as CSV files, as for ``interval_honesty.py``. Three sets of questions: the splits
of that benchmark; 8, 12, 16 and 24 runs drawn from the cheapest 40 % of each table, from which its dearest
tenth is predicted; and splits of the supervised runs of the quickstart and of two shipped sweeps. Printed are
root mean square errors of ln loss as a ratio to those of a free gamma, geometric means by family.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from interval_honesty import Case, largest, public_cases

import sweeps
from fits import datasets, read_runs
from fits.checks.heldout.gamma_weight import weigh_gamma
from fits.estimation.joint import SUPERVISED, Recipe, fit_laws
from fits.estimation.model import Rows
from fits.table.runs import validate

QUICKSTART = Path(__file__).parents[1] / "notebooks" / "data" / "quickstart-runs.csv"
FREE = Recipe(laws=(), starts=16)
ONE = Recipe(laws=(), starts=16, pins={"gamma": 1.0})


def samples(directory: Path, count: int) -> Iterator[Case]:
    """Draw few cheap runs of each table, among those with at least one token per parameter."""
    tables = {"chinchilla": datasets.chinchilla().sort_values("loss").iloc[:-5].reset_index(drop=True)}
    tables |= {path.stem: read_runs(path) for path in sorted(directory.glob("*.csv"))}
    for name, runs in tables.items():
        usable = validate(runs)
        usable = usable[(usable["excluded"] == "") & (usable["tokens"] >= usable["params"])]
        order = np.argsort((usable["params"] * usable["tokens"]).to_numpy())
        pool, top = order[: int(0.4 * len(order))], order[-max(int(0.1 * len(order)), 3) :]
        for n in (8, 12, 16, 24):
            for seed in range(count if n < len(pool) else int(n == len(pool))):
                drawn = np.random.default_rng([len(name), n, seed]).choice(pool, n, replace=False)
                both = pd.concat([usable.iloc[np.sort(drawn)], usable.iloc[top]], ignore_index=True)
                yield Case(f"{n} runs", name, f"{n} of them, {seed}", both, np.arange(len(both)) >= n)


def own_cases() -> Iterator[Case]:
    """Splits of the supervised runs of the quickstart and of two shipped sweeps, each once."""
    tables = {name: sweeps.shipped(name) for name in ("permissive", "methods")}
    for name, runs in {"quickstart": read_runs(QUICKSTART), **tables}.items():
        table = validate(runs)
        table = table[table["kind"] == SUPERVISED].reset_index(drop=True)
        used = (table["excluded"] == "").to_numpy()
        N, D = (table[column].to_numpy(np.float64) for column in ("params", "tokens"))
        splits = {(kind, share): largest(by, used, share) for kind, by, share in (
            ("dearest", N * D, 0.2), ("dearest", N * D, 0.35), ("dearest", N * D, 0.5),
            ("sizes", N, 0.2), ("sizes", N, 0.4), ("tokens", D, 0.3),
        )}  # fmt: skip
        for out in {mask.tobytes(): mask for mask in splits.values() if mask.any()}.values():
            yield Case(name, name, f"{out.sum()} left out", table, out)


def errors(case: Case) -> tuple[float, float, float]:
    """Return the errors with gamma free, gamma = 1 and gamma pulled."""
    table = validate(case.runs[~case.out].reset_index(drop=True))
    left = Rows.of(validate(case.runs[case.out].reset_index(drop=True)))
    rows = Rows.of(table)
    pulled, _ = weigh_gamma(table, rows, FREE)

    def error(recipe: Recipe) -> float:
        law = fit_laws(rows, recipe)[SUPERVISED].supervised
        return float(np.sqrt(np.mean(np.log(left.L / law.loss(left.N, left.D)) ** 2)))

    free = error(FREE)
    return free, error(ONE), free if pulled is FREE else error(pulled)


def main() -> None:
    """Print the ratios by family, and their means by set of questions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--samples", type=int, default=3)
    options = parser.parse_args()
    sets = {
        "few cheap runs": samples(options.directory, options.samples),
        "own sweeps": own_cases(),
        "public splits": public_cases(options.directory),
    }
    for name, cases in sets.items():
        began, found = time.process_time(), {}
        for case in cases:
            family = case.table.split("20")[0]
            found.setdefault(family, []).append(np.log(errors(case)))
        ratios = {family: np.mean(logs, axis=0) - np.mean(logs, axis=0)[0] for family, logs in found.items()}
        ratios["mean"] = np.mean(list(ratios.values()), axis=0)
        print(f"\n{name}, {time.process_time() - began:.0f} CPU s{'gamma = 1':>30}{'pulled':>10}")
        for family, ratio in ratios.items():
            count = len(found.get(family, ()))
            print(f"{family:<14}{count:>6}{np.exp(ratio[1]):>28.3f}{np.exp(ratio[2]):>10.3f}", flush=True)


if __name__ == "__main__":
    main()
