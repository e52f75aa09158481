"""Fits to Figure 1 of Busbridge et al. 2025, the source of two published calibrations.

Both use the supervised law printed in the paper's Table 6, which is not fitted here (its runs were not
released). Its uncertainty is propagated: every draw has a different supervised law, and the distillation
laws are refitted to it.

:func:`fit_runs` fits the 354 runs. :func:`fit_curves` fits Eq. 8, in all nine coefficients, to the curves
that the authors drew of their own fit. The token counts of the 20 curves were read from a color scale in
bins of 1 %, whose ends are less certain; they are fitted too, within 3 %.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

from fits import datasets
from fits.estimation.estimate import Objective
from fits.estimation.laws.parametrization import NineCoordinates
from fits.estimation.model import Rows
from fits.fitting import Fit, fit
from scaling import SupervisedLaw
from scaling.calibration.calibration import Calibration
from scaling.calibration.provenance import Provenance

Array = NDArray[np.float64]

PRINTED = {
    "E": (1.220, 1.190, 1.247, 0.0005),
    "A": (3355.0, 3346.0, 3360.0, 0.5),
    "B": (18186.0, 18157.0, 18236.0, 0.5),
    "alpha": (0.408, 0.405, 0.411, 0.0005),
    "beta": (0.431, 0.428, 0.433, 0.0005),
    "gamma": (0.452, 0.442, 0.461, 0.0005),
}
"""Table 6: value, ends of the 90 % interval, half of the last printed digit."""
RESIDUAL_SD = 0.004
"""Assumed residual of the supervised law, relative; the paper's Figure 5 spans 1 %."""
PAPER = "Busbridge et al. 2025, Distillation Scaling Laws, arXiv 2502.08606 (ICML 2025)"


def supervised_from_table6(draws: int = 400, seed: int = 0) -> Calibration:
    """Return the supervised law of Table 6, with draws.

    The printed intervals give no correlations, and independent draws from them would spread the predicted
    losses ten times as wide as the residuals of the fit. So the law is linearized over the design that the
    paper describes, with residuals of ``RESIDUAL_SD``, and combined with independent Gaussians of the printed
    intervals; rounding is drawn uniformly.
    """
    rng = np.random.default_rng(seed)
    law = SupervisedLaw(**{name: row[0] for name, row in PRINTED.items()})
    N, D = supervised_design()
    derivatives = law.derivatives(N, D)
    jacobian = np.stack([derivatives.own[name] / derivatives.loss for name in PRINTED], axis=1) / RESIDUAL_SD
    center = np.array([row[0] for row in PRINTED.values()])
    printed = np.array([(high - low) / (2 * 1.645) for _, low, high, _ in PRINTED.values()]) / center
    covariance = np.linalg.inv(jacobian.T @ jacobian + np.diag(printed**-2.0))
    moved = center * np.exp(rng.multivariate_normal(np.zeros(len(center)), covariance, size=draws))
    rounding = np.array([row[3] for row in PRINTED.values()])
    moved += rng.uniform(-rounding, rounding, size=moved.shape)
    return Calibration(
        name="the supervised law of Table 6, with its printed intervals",
        supervised=law,
        distillation={},
        draws={"supervised": dict(zip(PRINTED, moved.T, strict=True))},
        provenance=Provenance(source=PAPER, date="2025-07-25"),
    )


def supervised_design() -> tuple[Array, Array]:
    """Return parameters and tokens of about 73 runs, as appendix E.2 describes them."""
    fixed_ratio = np.geomspace(143e6, 12.6e9, 11)
    long = np.geomspace(198e6, 7.75e9, 6)
    N, D = [fixed_ratio, long], [20 * fixed_ratio, np.full(6, 512e9)]
    for compute in (3e19, 1e20, 3e20, 1e21):
        sizes = np.sqrt(compute / 120) * np.geomspace(0.25, 4, 14)
        N.append(sizes)
        D.append(compute / (6 * sizes))
    return np.concatenate(N), np.concatenate(D)


def fit_runs(draws: int = 400) -> Fit:
    """Fit all 354 runs: Eq. 8 in its eight identifiable coefficients, and the effective-tokens laws."""
    return fit(
        datasets.figure1(),
        laws=[
            "published",
            "effective-tokens",
            "effective-tokens-capacity",
            "effective-tokens-sharp",
        ],
        supervised=supervised_from_table6(draws),
        objective=Objective(delta=np.inf, priors=False),
        draws=draws,
        name="busbridge2025-figure1-runs",
        source=f"354 runs read off Figure 1 of {PAPER}",
    )


def fit_curves(draws: int = 400) -> Fit:
    """Fit the authors' curves, with token counts refined within the precision of their reading."""
    table = refine_tokens(datasets.figure1_curves())
    return fit(
        table,
        laws=["published-9"],
        supervised=supervised_from_table6(draws),
        objective=Objective(delta=np.inf, priors=False),
        draws=draws,
        held_out=False,
        name="busbridge2025-figure1-curves",
        source=f"the authors' own fit, read off the curves of Figure 1 of {PAPER}",
    )


def refine_tokens(table: pd.DataFrame, tolerance: float = 0.03) -> pd.DataFrame:
    """Return the table with the tokens of every curve moved by at most ``tolerance`` to fit Eq. 8 best."""
    rows, law = Rows.of(table), supervised_from_table6().supervised
    coordinates = NineCoordinates(rows.center())
    cell = table.groupby(["params", "tokens"], sort=False).ngroup().to_numpy()
    size = len(coordinates.space)

    def tokens(moved: Array) -> Array:
        return np.asarray(rows.D * np.exp(tolerance * moved[cell]))

    def residual(theta: Array) -> Array:
        fitted = coordinates.law(theta[None, :size])
        return np.asarray(fitted.loss(rows.N, tokens(theta[size:]), rows.L_T, law)[0] - rows.L)

    start = np.append([coordinate.prior for coordinate in coordinates.space], np.zeros(cell.max() + 1))
    reach = np.append(np.full(size, np.inf), np.ones(cell.max() + 1))
    found = least_squares(residual, start, bounds=(-reach, reach), x_scale="jac", xtol=1e-14, ftol=1e-14)
    return table.assign(tokens=tokens(found.x[size:]))
