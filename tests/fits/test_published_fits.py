"""The fits that others have published for the two public data sets, reached or beaten."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from samples_of_fits import FIGURE1

from fits import Objective, fit
from fits import figure1 as figure1_fits
from scaling.laws import DistillationLaw, coefficients

LEAST_SQUARES = Objective(delta=np.inf, priors=False)


def rmse(law: DistillationLaw, table: pd.DataFrame) -> float:
    predicted = law.loss(table["params"], table["tokens"], table["teacher_loss"], FIGURE1)
    return float(np.sqrt(np.mean((predicted - table["loss"]) ** 2)))


def test_chinchilla_by_huber(chinchilla: pd.DataFrame) -> None:
    """Besiroglu et al. 2024: A 482.01, B 2085.43, E 1.8172, alpha .3478, beta .3658; sum of Huber 1e-3."""
    found = fit(chinchilla, objective=Objective(delta=1e-3, priors=False), gamma=1.0, draws=20)
    main, law = found.main, found.supervised
    size = np.abs(main.residual)
    capped = np.minimum(size, 1e-3)
    assert np.sum(capped * (size - capped / 2)) <= 1.01828e-3
    assert main.agreed == main.starts
    assert law.alpha == pytest.approx(0.34731, abs=2e-4)
    assert law.beta == pytest.approx(0.36717, abs=2e-4)
    assert pytest.approx(1.81722, abs=2e-4) == law.E
    assert pytest.approx(477.83, rel=5e-3) == law.A
    assert pytest.approx(2143.4, rel=5e-3) == law.B


@pytest.mark.parametrize(
    ("law", "on_fit", "held_out"),
    [
        ("published", 0.00777, 0.0070),
        ("effective-tokens", 0.0051, 0.0086),
        ("effective-tokens-capacity", 0.00401, 0.0135),
    ],
)
def test_figure1(figure1: pd.DataFrame, law: str, on_fit: float, held_out: float) -> None:
    """Fitted to L_S > 2.3, predicted at L_S <= 2.3 (the authors' split); RMSE in nats/token."""
    training = figure1[figure1["split"] == "fit"]
    found = fit(training, laws=[law], supervised=FIGURE1, objective=LEAST_SQUARES, draws=20)
    assert rmse(found.distillation[law], training) <= on_fit
    assert rmse(found.distillation[law], figure1[figure1["split"] == "extrapolation"]) <= held_out
    assert found.estimates[law].status == "converged"


def test_the_authors_own_curves() -> None:
    """Eq. 8 gives back the curves the authors drew, and tells how badly Table 6 misprints B' = 24181."""
    found = figure1_fits.curves(draws=20)
    law = found.distillation["published-9"]
    table = found.table
    assert rmse(law, table) <= 2e-5
    assert 60 < coefficients(law)["B"] / 24181 < 110
