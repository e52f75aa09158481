"""Measure how often the weights of laws find the law that made the runs, and weigh laws on real runs.

    python benchmarks/law_evidence.py [--tables 30] [--noise 0.004]

Runs with the design of the shipped sweep ``permissive`` are simulated under each of two laws, with all of its
distillations, with 40 and with 28 of them. A line says how often the true law was refuted and preferred, its
mean weight, and how often the other law was refuted. Then the evidence of Figure 1 and of that sweep follows.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from fits import Objective, datasets, fit
from fits.checks.comparison.evidence import weigh_laws
from fits.estimation.joint import Recipe
from fits.estimation.model import Rows
from fits.estimation.settings import fit_jointly_or_separately
from fits.published.busbridge2025 import supervised_from_table6
from fits.table.runs import validate
from scaling import SupervisedLaw
from scaling.laws import DistillationLaw

LAWS = ("effective-tokens", "published")
FAMILY = (*LAWS, "effective-tokens-capacity", "effective-tokens-sharp")
COLUMNS = ["kind", "run", "params", "tokens", "teacher_loss"]


def simulated(
    design: pd.DataFrame,
    supervised: SupervisedLaw,
    law: DistillationLaw,
    noise: float,
    students: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Return runs of a law: all supervised ones of the design, and some of its distillations."""
    alone, taught = (design[design["kind"] == kind] for kind in ("supervised", "distillation"))
    taught = taught.iloc[np.sort(rng.choice(len(taught), students, replace=False))]
    loss = [
        supervised.loss(alone["params"], alone["tokens"]),
        law.loss(taught["params"], taught["tokens"], taught["teacher_loss"], supervised),
    ]
    table = pd.concat([alone, taught], ignore_index=True)[COLUMNS]
    return table.assign(loss=np.concatenate(loss) * np.exp(noise * rng.standard_normal(len(table))))


def main() -> None:
    """Print a line for each truth and number of distillations, then the evidence of real runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tables", type=int, default=30)
    parser.add_argument("--noise", type=float, default=0.004)
    asked = parser.parse_args()
    runs = datasets.permissive()
    found = fit(runs, draws=20, held_out=False)
    design = found.table[found.table["excluded"] == ""]
    for students in (int((design["kind"] == "distillation").sum()), 40, 28):
        for truth in LAWS:
            results = []
            for seed in range(asked.tables):
                law = found.distillation[truth]
                rng = np.random.default_rng(seed)
                table = validate(simulated(design, found.supervised, law, asked.noise, students, rng))
                rows, recipe = Rows.of(table), Recipe(laws=LAWS, pins={"gamma": 1.0}, starts=8)
                recipe, estimates, _ = fit_jointly_or_separately(rows, recipe, None)
                evidence = weigh_laws(table, rows, recipe, [estimates])
                if evidence is not None:
                    by_law = {each.law: each for each in evidence.laws}
                    (other,) = set(LAWS) - {truth}
                    own = by_law[truth]
                    results.append(
                        (own.refuted, evidence.preferred == truth, own.weight, by_law[other].refuted)
                    )
            refuted, preferred, weight, others = np.mean(results, axis=0)
            print(
                f"{students} distillations of the {truth} law ({len(results)} tables): refuted "
                f"{refuted:.0%}, preferred {preferred:.0%}, weight {weight:.2f}; the other law refuted "
                f"{others:.0%}"
            )
    figure1 = fit(
        datasets.figure1(), laws=FAMILY, supervised=supervised_from_table6(20), draws=20, held_out=False,
        objective=Objective(delta=np.inf, priors=False),
    )  # fmt: skip
    for name, each in {"figure 1": figure1, "permissive": fit(runs, laws=FAMILY, draws=20)}.items():
        print(f"\n{name}")
        print("\n".join(each.evidence.lines() if each.evidence else ["no evidence"]))


if __name__ == "__main__":
    main()
