"""Pull of gamma towards 1: by blocks left out, none where they or the runs are against it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fits import fit, read_runs
from fits.checks.heldout.gamma_weight import GammaErrors, weigh_gamma, weight_of_one
from fits.estimation.joint import SUPERVISED, Recipe, fit_laws
from fits.estimation.laws.parametrization import Prior
from fits.estimation.model import Rows
from fits.table.runs import validate
from scaling import SupervisedLaw

QUICKSTART = Path(__file__).parents[3] / "notebooks" / "data" / "quickstart-runs.csv"


def gamma_of(table: pd.DataFrame, recipe: Recipe) -> float:
    return float(next(iter(fit_laws(Rows.of(table), recipe).values())).supervised.gamma)


def runs_under(gamma: float, noise: float = 0.004, seed: int = 0) -> pd.DataFrame:
    """Return 15 small runs under a law whose terms and slopes at the center do not depend on gamma."""
    alpha, beta, term = 0.28 / gamma, 0.45 / gamma, 1.2 ** (1 / gamma)
    law = SupervisedLaw(E=1.4, A=term * 4e4**alpha, B=term * 5e5**beta, alpha=alpha, beta=beta, gamma=gamma)
    N, D = (x.ravel() for x in np.meshgrid(np.geomspace(13e3, 160e3, 5), np.geomspace(2.6e5, 1e6, 3)))
    loss = law.loss(N, D) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(N)))
    return validate(pd.DataFrame({"params": N, "tokens": D, "loss": loss}))


def weighed(table: pd.DataFrame, **options: object) -> tuple[Recipe, list[str]]:
    return weigh_gamma(table, Rows.of(table), Recipe(**{"laws": (), **options}))  # type: ignore[arg-type]


def test_odds_fall_with_the_runs_and_grow_with_the_fourth_power_of_the_ratio_of_errors() -> None:
    def odds(free: float, one: float, runs: int) -> float:
        weight = weight_of_one([GammaErrors("block", free, one)], runs)
        return weight / (1 - weight)

    assert odds(0.01, 0.01, 8) == pytest.approx(1 / 8)
    assert odds(0.01, 0.004, 16) == pytest.approx(1 / 16 * 2**4)  # .002 is added to either
    assert odds(0.01, 0.01, 200) == 0.0  # a weight below .1
    assert weight_of_one([], 15) == 0.0


def test_the_pull_moves_the_free_estimate_to_the_weighted_mean() -> None:
    table = validate(read_runs(QUICKSTART))
    options = {"laws": ("effective-tokens",), "starts": 8}
    recipe, notes = weighed(table, **options)
    weight = float(notes[0].split("weight ")[1].split(":")[0])
    free, pulled = (gamma_of(table, each) for each in (Recipe(**options), recipe))
    assert 0.4 < weight < 0.7
    assert np.log(pulled) == pytest.approx((1 - weight) * np.log(free), abs=0.02)
    assert set(recipe.priors_without) == {"largest compute", "dearest third", "largest sizes"}


def test_a_gamma_far_below_one_is_not_pulled() -> None:
    table = runs_under(0.45)
    assert weighed(table) == (Recipe(laws=()), [])


def test_the_quickstart_is_predicted_better() -> None:
    """Its own largest runs, with the weight of the other blocks."""
    runs = read_runs(QUICKSTART)
    errors = {}
    for gamma in ("free", "auto"):
        found = fit(runs, laws=["effective-tokens"], gamma=gamma, draws=20, starts=8)
        errors[gamma] = {held.rule: held.relative for held in found.held_out if held.law == SUPERVISED}
    assert set(errors["auto"]) == {"largest compute", "dearest third", "largest sizes"}
    assert all(errors["auto"][rule] < 0.85 * errors["free"][rule] for rule in errors["auto"])


@pytest.mark.parametrize(
    "options", [{"pins": {"gamma": 0.8}}, {"given": SupervisedLaw(E=1, A=1, B=1, alpha=1, beta=1)}]
)
def test_a_gamma_that_is_not_free_stays(options: dict[str, object]) -> None:
    recipe, notes = weighed(runs_under(1.0), **options)
    assert not recipe.priors
    assert not notes


def test_free_and_one_are_as_asked_and_auto_is_noted() -> None:
    runs = read_runs(QUICKSTART)
    options = {"laws": ["effective-tokens"], "draws": 20, "starts": 8, "held_out": False}
    found = {gamma: fit(runs, gamma=gamma, **options) for gamma in ("auto", "free", 1.0)}
    gammas = {gamma: float(each.supervised.gamma) for gamma, each in found.items()}
    assert gammas["free"] < gammas["auto"] < gammas[1.0] == 1.0
    assert any("pulled towards 1" in note for note in found["auto"].notes)
    assert not any("pulled towards 1" in note for note in found["free"].notes)


def test_the_product_of_normals() -> None:
    assert Prior(0.0, 1.0).times(Prior(2.0, 1.0)) == pytest.approx((1.0, 0.5**0.5))
    assert Prior(0.3, 0.4).times(Prior(-5.0, 1e6)) == pytest.approx((0.3, 0.4))
