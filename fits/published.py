"""Make the calibrations that ship with the package: ``python -m fits.published``.

Each is written to ``scaling/published``. Printed coefficients are copied from the papers; the sets named
after Figure 1 of Busbridge et al. 2025 are fitted here, to the data in ``fits/data``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import scaling.calibration
from fits.datasets import chinchilla, figure1, figure1_curves
from fits.estimate import Objective
from fits.fitting import Fit, fit
from scaling.calibration import SUPERVISED, Calibration, Draws, Provenance, Region
from scaling.compute import Architecture
from scaling.laws import PublishedLaw, SupervisedLaw

DIRECTORY = Path(scaling.calibration.__file__).with_name("published")
COMMAND = "python -m fits.published"
DRAWS = 1000
SEED = 0

BUSBRIDGE = "Busbridge et al. 2025, Distillation Scaling Laws, ICML (arXiv 2502.08606v2)"
FIGURE_1 = "positions in the vector graphics of its Figure 1, republished by PlanarG/active-sl (MIT)"
C4 = "C4 (English), about 90B unique tokens each for teachers and for students"

SUPERVISED_LAW = SupervisedLaw(E=1.220, A=3355.0, B=18186.0, alpha=0.408, beta=0.431, gamma=0.452)
INTERVALS = {
    "E": (1.190, 1.247),
    "A": (3346.0, 3360.0),
    "B": (18157.0, 18236.0),
    "alpha": (0.405, 0.411),
    "beta": (0.428, 0.433),
    "gamma": (0.442, 0.461),
}
"""Table 6, 90 % bootstrap intervals of the supervised law; their correlations are not printed."""
Z_90 = 1.6448536269514722
SUPERVISED_REGION = {"params": (1.028e8, 1.261e10), "tokens": (2e9, 5.12e11)}
"""Models of Table 13; tokens from about 20 per parameter of the smallest to 512B."""
SUPERVISED_NOTE = (
    "The supervised law is the one printed in Table 6, not fitted here: no supervised runs were released. Its "
    "printed 90 % intervals are carried as independent normal draws, because their correlations are not printed."
)


def printed_supervised() -> Calibration:
    """The supervised law of Table 6 with draws from its printed intervals."""
    rng = np.random.default_rng(SEED)
    draws: dict[str, np.ndarray] = {}
    for name, (low, high) in INTERVALS.items():
        centre, sd = float(getattr(SUPERVISED_LAW, name)), (high - low) / (2 * Z_90)
        draws[name] = centre + sd * rng.standard_normal(DRAWS)
    return Calibration(
        name="Table 6",
        supervised=SUPERVISED_LAW,
        distillation={},
        draws={SUPERVISED: draws},
        provenance=Provenance(source=BUSBRIDGE, date="2025-07-25"),
    )


def figure1_runs(draws: int = DRAWS) -> Calibration:
    """Both distillation laws fitted to the 354 runs of Figure 1, with draws."""
    fitted = fit(
        figure1(),
        laws=["effective-tokens", "published"],
        supervised=printed_supervised(),
        draws=draws,
        seed=SEED,
        name="busbridge2025-figure1-runs",
        source=f"354 distillation runs of {BUSBRIDGE}; {FIGURE_1}",
    )
    made = fitted.calibration
    return replace(
        made,
        default="published",
        region=replace(made.region, **SUPERVISED_REGION),
        provenance=replace(
            made.provenance,
            command=COMMAND,
            corpus=C4,
            notes=(
                SUPERVISED_NOTE,
                "Tokens are known to 1 %, losses to 1e-5; the sizes of the teachers are not.",
            ),
        ),
    )


def figure1_curves_set() -> Calibration:
    """The published law refitted to the curves that the authors drew; no uncertainty of its own."""
    fitted = fit(
        figure1_curves(),
        laws=["published"],
        supervised=SUPERVISED_LAW,
        objective=Objective(delta=float("inf"), priors=False),
        draws=20,
        hold_out_largest=False,
        seed=SEED,
        name="busbridge2025-figure1-curves",
        source=f"2000 points of the authors' own fit, the 20 curves in {BUSBRIDGE}; {FIGURE_1}",
    )
    runs = figure1()
    made = fitted.calibration
    law = made.law("published")
    miss = runs["loss"] - law.loss(runs["params"], runs["tokens"], runs["teacher_loss"], SUPERVISED_LAW)
    region = figure1_region(runs)
    return replace(
        made,
        draws={},
        region=region,
        residual_sd={"published": float(np.sqrt(np.mean(miss**2)))},
        provenance=replace(
            made.provenance,
            command=COMMAND,
            corpus=C4,
            notes=(
                "What the authors' coefficients were before they were misprinted: Eq. 8 fitted to their curves. "
                "The residual is that of the 354 runs.",
                "The supervised law is the one printed in Table 6.",
            ),
        ),
    )


def figure1_region(runs: pd.DataFrame) -> Region:
    """The smallest and largest values among the 354 runs."""
    ratio = runs["teacher_loss"] / SUPERVISED_LAW.loss(runs["params"], runs["tokens"])
    return Region(
        student_params=(float(runs["params"].min()), float(runs["params"].max())),
        student_tokens=(float(runs["tokens"].min()), float(runs["tokens"].max())),
        teacher_loss=(float(runs["teacher_loss"].min()), float(runs["teacher_loss"].max())),
        teacher_loss_ratio=(float(ratio.min()), float(ratio.max())),
        runs={"distillation": len(runs)},
        **SUPERVISED_REGION,
    )


def table6() -> Calibration:
    """Table 6 of Busbridge et al. 2025 to the letter, misprint included."""
    law = PublishedLaw(
        c0=2.549,
        c1=522.6,
        d1=1.315,
        f1=0.090,
        A=2243.0,
        B=24181.0,
        alpha=0.321,
        beta=0.637,
        gamma=0.764,
    )
    runs, curves = figure1(), figure1_curves()
    at = (runs["params"], runs["tokens"], runs["teacher_loss"])
    miss = runs["loss"] - law.loss(*at, SUPERVISED_LAW)
    drawn = law.loss(curves["params"], curves["tokens"], curves["teacher_loss"], SUPERVISED_LAW)
    relative = 100 * float(np.sqrt(np.mean((drawn / curves["loss"] - 1) ** 2)))
    return Calibration(
        name="busbridge2025-table6",
        supervised=SUPERVISED_LAW,
        distillation={"published-9": law},
        region=Region(
            student_params=(1.43e8, 7.75e9),
            student_tokens=(3e9, 5.12e11),
            teacher_loss=(1.9, 2.8),
            runs={"supervised": 73, "distillation": 697},
            **SUPERVISED_REGION,
        ),
        residual_sd={"published-9": float(np.sqrt(np.mean(miss**2)))},
        provenance=Provenance(
            source=f"Table 6 of {BUSBRIDGE}, verbatim",
            date="2025-07-25",
            command=COMMAND,
            corpus=C4,
            notes=("Coefficients carry three decimals. The residual is that of the 354 runs of Figure 1.",),
            warnings=(
                f"The coefficient B' = 24181 of the distillation law is misprinted: these coefficients miss the "
                f"authors' own curves by {relative:.1f} % rms, mostly for few student tokens. Use "
                "busbridge2025-figure1-runs or -curves instead.",
            ),
        ),
    )


def hoffmann2022() -> Calibration:
    """The supervised law of Hoffmann et al. 2022, approach 3, as printed."""
    return Calibration(
        name="hoffmann2022",
        supervised=SupervisedLaw(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28),
        distillation={},
        region=Region(params=(7e7, 1.6e10), tokens=(5e9, 5e11)),
        architecture=Architecture(rule="6nd"),
        provenance=Provenance(
            source="Hoffmann et al. 2022, Training Compute-Optimal Large Language Models (arXiv 2203.15556), Eq. 10",
            date="2022-03-29",
            command=COMMAND,
            corpus="MassiveText",
            tokenizer="SentencePiece, 32k",
            notes=("Parameters include embeddings, and FLOPs are 6ND.",),
            warnings=(
                "Printed coefficients are rounded and fit their own runs badly (Besiroglu et al. 2024): "
                "besiroglu2024 corrects them.",
            ),
        ),
    )


def besiroglu2024(draws: int = DRAWS) -> Calibration:
    """The corrected fit of Besiroglu et al. 2024, with draws from our own bootstrap of their runs."""
    runs = chinchilla().sort_values("loss").iloc[:-5]
    fitted = _bootstrap_of_chinchilla(runs, draws)
    printed = SupervisedLaw(E=1.81686, A=482.00572, B=2085.43420, alpha=0.34781, beta=0.36585)
    miss = runs["loss"] - printed.loss(runs["params"], runs["tokens"])
    return Calibration(
        name="besiroglu2024",
        supervised=printed,
        distillation={},
        draws={SUPERVISED: fitted},
        region=Region(
            params=(float(runs["params"].min()), float(runs["params"].max())),
            tokens=(float(runs["tokens"].min()), float(runs["tokens"].max())),
            runs={"supervised": len(runs)},
        ),
        residual_sd={SUPERVISED: float(np.sqrt(np.mean(miss**2)))},
        architecture=Architecture(rule="6nd"),
        provenance=Provenance(
            source="Besiroglu et al. 2024, Chinchilla Scaling: A replication attempt (arXiv 2404.10102)",
            date="2024-04-15",
            command=COMMAND,
            corpus="MassiveText",
            tokenizer="SentencePiece, 32k",
            notes=(
                "Coefficients as published; draws from our own bootstrap of the same 240 runs.",
                "Parameters include embeddings, and FLOPs are 6ND. Losses are known to 0.01.",
            ),
        ),
    )


def _bootstrap_of_chinchilla(runs: pd.DataFrame, draws: int) -> dict[str, np.ndarray]:
    fitted: Fit = fit(
        runs,
        gamma=1.0,
        objective=Objective(delta=1e-3, priors=False),
        draws=draws,
        resample="runs",
        hold_out_largest=False,
        seed=SEED,
    )
    return dict(fitted.draws[SUPERVISED])


MAKERS: dict[str, Callable[[], Calibration]] = {
    "besiroglu2024": besiroglu2024,
    "busbridge2025-figure1-curves": figure1_curves_set,
    "busbridge2025-figure1-runs": figure1_runs,
    "busbridge2025-table6": table6,
    "hoffmann2022": hoffmann2022,
}


def main() -> None:
    """Make all sets, or those named on the command line."""
    for name in sys.argv[1:] or MAKERS:
        path = MAKERS[name]().save(DIRECTORY / f"{name}.json")
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
