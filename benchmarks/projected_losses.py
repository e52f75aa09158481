"""Error of losses that are projected from stable phases, on Gemstones' runs (McLeish et al. 2025).

    python benchmarks/projected_losses.py DIRECTORY

The directory holds ``gemstones2025_hot.csv`` and ``gemstones2025_cool_end.csv``: run, tokens and loss, before
the decay at 10B, 20B, ... tokens and after it at 11B, 22B, ... For runs of our own trainer,
``projected_losses.yaml`` is a sweep that measures what it projects.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from fits.table.projection import DRIFT_SD, projected_loss, projection_sd


def pairs_in(folder: Path) -> pd.DataFrame:
    """Return the losses of each run before and after each of its decays."""
    hot, cool = (pd.read_csv(folder / f"gemstones2025_{name}.csv") for name in ("hot", "cool_end"))
    hot["decay"], cool["decay"] = (hot["tokens"] / 1e10).round(), (cool["tokens"] / 1.1e10).round()
    return hot.merge(cool, on=["run", "decay"], suffixes=("_hot", ""))


def main() -> None:
    """Print the drop of a decay, and how it changes between lengths."""
    table = pairs_in(Path(sys.argv[1]))
    drop = np.log(table["loss_hot"] / table["loss"])
    print(f"{len(table)} decays of {table['run'].nunique()} sizes lower ln loss by {drop.mean():.4f}")
    rows = [
        (late["tokens"] / early["tokens"], early, late)
        for _, run in table.groupby("run")
        for early, late in combinations(run.sort_values("decay").to_dict("records"), 2)
    ]
    error = np.array(
        [
            np.log(projected_loss(late["loss_hot"], early["loss_hot"], early["loss"]) / late["loss"])
            for _, early, late in rows
        ]
    )
    times = np.array([each[0] for each in rows])
    drift = np.sqrt(np.sum(error**2) / np.sum(np.log(times)))
    inside = np.mean(np.abs(error) < 1.645 * projection_sd(times, 1.0))
    print(
        f"{len(rows)} pairs: sd {drift:.4f} per unit of ln tokens (shipped {DRIFT_SD}); 90 % intervals "
        f"cover {inside:.3f}"
    )
    for low, high in ((1, 1.5), (1.5, 2.5), (2.5, 5), (5, 9), (9, 11)):
        mine = (times > low) & (times <= high)
        rms = 100 * np.sqrt(np.mean(error[mine] ** 2))
        print(f"  {low:g} to {high:g} times: rms {rms:.2f} % of {mine.sum()}")


if __name__ == "__main__":
    main()
