"""Wherever a fit starts, it ends at the same optimum."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from samples_of_fits import FIGURE1, sweep

from fits import Objective, validate
from fits.estimation.estimate import fit_model
from fits.estimation.levenberg_marquardt import minimize
from fits.estimation.model import Model, Rows
from fits.estimation.variable_projection import is_projectable

IN_NATS = Objective(delta=np.inf, priors=False, in_nats=True)


@pytest.mark.parametrize("objective", [IN_NATS, Objective()], ids=["least squares in nats", "default"])
@pytest.mark.parametrize(
    ("law", "starts", "astray"),
    [("published", 50, 2), ("effective-tokens", 30, 0), ("effective-tokens-capacity", 30, 0)],
)
def test_random_starts_agree(
    figure1: pd.DataFrame, objective: Objective, law: str, starts: int, astray: int
) -> None:
    """``astray`` is how many of the random starts may end elsewhere, whatever the seed."""
    model = Model(Rows.of(figure1[figure1["split"] == "fit"]), law, given=FIGURE1, in_nats=objective.in_nats)
    ends = [fit_model(model, objective, starts=starts, seed=seed) for seed in range(10)]
    assert {found.starts for found in ends} == {starts}
    assert min(found.agreed for found in ends) >= starts - astray
    assert np.ptp([found.objective for found in ends]) < 1e-4 * ends[0].objective


@pytest.mark.parametrize(
    "objective",
    [Objective(), IN_NATS, Objective(delta=1e-3, priors=False)],
    ids=["default", "least squares in nats", "Huber 1e-3"],
)
def test_projected_exponents_lead_to_the_best_of_many_starts(objective: Objective) -> None:
    """The map of exponents misses no optimum that random starts find, outliers or not."""
    for seed in range(6):
        frame = sweep(noise=0.01, seed=seed, students=())
        frame.loc[seed, "loss"] *= 1.0 + 0.1 * (seed % 2)
        model = Model(
            Rows.of(validate(frame)), None, fixed={"supervised ln gamma": 0.0}, in_nats=objective.in_nats
        )
        assert is_projectable(model)
        found = fit_model(model, objective)
        assert found.starts == 49
        center, width = model.prior()
        points = center + width * np.random.default_rng(seed).standard_normal((40, model.size))
        others = minimize(found.problem, points).objective
        assert found.objective <= others.min() * (1 + 1e-6)
