"""Do nominal 90 % intervals contain the truth? A simulation over realistic sweeps, one line a quantity.

    python benchmarks/fit_coverage.py [--sweeps 200] [--draws 200] [--methods wild,normal] [--auto-gamma]

For every design, synthetic sweeps are drawn from a known law with seed noise, fitted from the default
settings, and the 5 % and 95 % quantiles of the draws are compared with the truth: for the coefficients, for
losses at 10 and 100 times the largest compute, and for the loss of the teacher to choose.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fits import Objective
from fits.checks.heldout.gamma_weight import weigh_gamma
from fits.estimation.bootstrap import RESAMPLES, bootstrap
from fits.estimation.joint import Recipe, fit_laws
from fits.estimation.model import Rows
from fits.table.runs import validate
from scaling import EffectiveTokensLaw, PublishedLaw, SupervisedLaw
from scaling.laws import DistillationLaw, coefficients


@dataclass(frozen=True)
class Design:
    """A sweep under a known truth."""

    name: str
    supervised: SupervisedLaw
    distilled: DistillationLaw
    sizes: np.ndarray
    tokens: np.ndarray
    students: np.ndarray
    student_tokens: np.ndarray
    teachers: tuple[int, ...]
    """Supervised runs, counted along sizes then tokens, that are teachers."""
    noise: float
    checkpoints: bool = False
    """True for one supervised run per size, whose checkpoints are its token counts. Checkpoints of a run
    share their noise; each has a quarter as much of its own."""
    law: str = "effective-tokens"
    """The distillation law that is fitted, the one that made the runs."""

    @property
    def recipe(self) -> Recipe:
        """The default settings, but for gamma: 1 where the truth has that, free elsewhere."""
        pins = {"gamma": 1.0} if self.supervised.gamma == 1.0 else {}
        return Recipe(
            laws=(self.law,), pins=pins, tied=False, given=None, given_draws=None,
            objective=Objective(), starts=12, seed=0,
        )  # fmt: skip

    def runs(self, rng: np.random.Generator) -> pd.DataFrame:
        """One synthetic sweep."""
        N, D = (axis.ravel() for axis in np.meshgrid(self.sizes, self.tokens, indexing="ij"))
        noise = self.noise * rng.standard_normal(len(N))
        run = np.arange(len(N))
        if self.checkpoints:
            run = run // len(self.tokens)
            noise = noise[run] + noise / 4
        loss = self.supervised.loss(N, D) * np.exp(noise)
        first = pd.DataFrame({"kind": "supervised", "params": N, "tokens": D, "loss": loss})
        first["run"] = [f"run {i}" for i in run]
        axes = np.meshgrid(self.students, self.student_tokens, loss[list(self.teachers)], indexing="ij")
        N, D, L_T = (axis.ravel() for axis in axes)
        loss = self.distilled.loss(N, D, L_T, self.supervised)
        loss = loss * np.exp(self.noise * rng.standard_normal(len(N)))
        second = pd.DataFrame(
            {"kind": "distillation", "params": N, "tokens": D, "loss": loss, "teacher_loss": L_T}
        )
        return pd.concat([first, second], ignore_index=True)

    def target(self, factor: float) -> tuple[float, float]:
        """Parameters and tokens that use ``factor`` times the largest compute, in the largest run's ratio."""
        return float(self.sizes[-1] * factor**0.5), float(self.tokens[-1] * factor**0.5)


LARGE = SupervisedLaw(E=1.7, A=480.0, B=2085.0, alpha=0.35, beta=0.37)
TINY = SupervisedLaw(E=1.6, A=17.0, B=612.0, alpha=0.22, beta=0.45)
PAPER = SupervisedLaw(E=1.22, A=3355.0, B=18186.0, alpha=0.408, beta=0.431, gamma=0.452)
LAW = EffectiveTokensLaw(k=1.4, q=9.0, eps=0.025)
FAR = SupervisedLaw(E=1.7, A=6.9e4, B=26.5, alpha=0.62, beta=0.17)
FAR_LAW = EffectiveTokensLaw(k=0.4, q=22.0, eps=0.1)
"""Laws one to two standard deviations of the weak priors from their centers."""
EIGHT = PublishedLaw(c0=2.4, k=0.92, f1=0.1, A=2300.0, B=97000.0, alpha=0.33, beta=0.49, gamma=0.74)

DESIGNS = (
    Design(
        "20+40, 0.3 %", LARGE, LAW, np.geomspace(1e7, 1e9, 5), np.geomspace(3e8, 3e10, 4),
        np.geomspace(1e7, 2e8, 5), np.array([1e9, 1e10]), (2, 6, 11, 19), 0.003,
    ),
    Design(
        "24+75, 0.3 %", LARGE, LAW, np.geomspace(1e7, 1e9, 6), np.geomspace(3e8, 3e10, 4),
        np.geomspace(1e7, 2e8, 5), np.geomspace(6e8, 1.5e10, 3), (1, 6, 11, 18, 23), 0.003,
    ),
    Design(
        "16+24, 1 %", TINY, LAW, np.array([8e3, 3e4, 1e5, 4e5]), np.array([2.5e5, 5e5, 1e6, 2e6]),
        np.array([8e3, 3e4, 1e5]), np.array([5e5, 2e6]), (3, 6, 10, 15), 0.01,
    ),
    Design(
        "24+75, 0.3 %, published", PAPER, EIGHT, np.geomspace(1e8, 8e9, 6), np.geomspace(2e9, 2e11, 4),
        np.geomspace(1.4e8, 2e9, 5), np.geomspace(4e9, 1e11, 3), (1, 6, 11, 18, 23), 0.003, law="published",
    ),
    Design(
        "20+40, 0.3 %, far", FAR, FAR_LAW, np.geomspace(1e7, 1e9, 5), np.geomspace(3e8, 3e10, 4),
        np.geomspace(1e7, 2e8, 5), np.array([1e9, 1e10]), (2, 6, 11, 19), 0.003,
    ),
    Design(
        "24+75, 0.3 %, far", FAR, FAR_LAW, np.geomspace(1e7, 1e9, 6), np.geomspace(3e8, 3e10, 4),
        np.geomspace(1e7, 2e8, 5), np.geomspace(6e8, 1.5e10, 3), (1, 6, 11, 18, 23), 0.003,
    ),
    Design(
        "12 runs of 15 checkpoints + 40, 0.4 %", LARGE, LAW, np.geomspace(1e7, 1e9, 12),
        np.geomspace(3e8, 3e10, 15), np.geomspace(1e7, 2e8, 5), np.array([1e9, 1e10]), (14, 59, 104, 179),
        0.004, checkpoints=True,
    ),
)  # fmt: skip


def quantities(
    design: Design, supervised: SupervisedLaw, distilled: DistillationLaw
) -> dict[str, np.ndarray]:
    """Return the quantities whose intervals are evaluated, each (draws,) or (1,)."""
    found = {name: np.ravel(value) for name, value in coefficients(supervised).items()}
    found |= {f"{name} ": np.ravel(value) for name, value in coefficients(distilled).items()}
    if design.supervised.gamma == 1.0:
        del found["gamma"]
    found["L in range"] = np.ravel(supervised.loss(design.sizes[2], design.tokens[2]))
    for factor in (10, 100):
        N, D = design.target(factor)
        L_T = design.supervised.loss(N, D) * 0.97
        grid = np.linspace(design.supervised.E * 1.02, float(L_T) * 1.2, 400)
        found[f"L at {factor}x"] = np.ravel(supervised.loss(N, D))
        found[f"L_S at {factor}x"] = np.ravel(distilled.loss(N, D, L_T, supervised))
        found[f"best L_T at {factor}x"] = grid[
            np.argmin(distilled.loss(N, D, grid, supervised), axis=-1)
        ].ravel()
    return found


def main() -> None:
    """Print the coverage of every method on every design."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--methods", default=",".join(RESAMPLES))
    parser.add_argument("--designs", default=",".join(map(str, range(len(DESIGNS)))))
    parser.add_argument("--auto-gamma", action="store_true", help="gamma free and pulled by left-out runs")
    options = parser.parse_args()
    methods = options.methods.split(",")
    for design in (DESIGNS[int(i)] for i in options.designs.split(",")):
        began = time.process_time()
        inside: dict[str, dict[str, list[bool]]] = {}
        truth = quantities(design, design.supervised, design.distilled)
        for seed in range(options.sweeps):
            table = validate(design.runs(np.random.default_rng(seed)))
            rows, recipe = Rows.of(table), design.recipe
            if options.auto_gamma:
                recipe, _ = weigh_gamma(table, rows, replace(recipe, pins={}))
            found = fit_laws(rows, recipe)[design.law]
            for method in methods:
                theta = bootstrap(found, options.draws, method=method, seed=seed).theta
                supervised, distilled = found.model.laws(theta)
                assert distilled is not None
                for name, values in quantities(design, supervised, distilled).items():
                    low, high = np.quantile(values, [0.05, 0.95])
                    hits = inside.setdefault(name, {}).setdefault(method, [])
                    hits.append(bool(low <= truth[name][0] <= high))
        print(
            f"\n{design.name}: {options.sweeps} sweeps, {time.process_time() - began:.0f} CPU s; "
            "coverage of 90 % intervals"
        )
        print(f"{'':<16}" + "".join(f"{method:>10}" for method in methods))
        for name, of_method in inside.items():
            print(f"{name:<16}" + "".join(f"{100 * np.mean(of_method[method]):>9.0f}%" for method in methods))


if __name__ == "__main__":
    main()
