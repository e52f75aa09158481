"""Errors on blocks of runs left out: none for a law that holds, found for one that does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from samples_of_fits import sweep

from fits import Fit, Objective, fit
from scaling import SupervisedLaw

HOFFMANN = SupervisedLaw(E=1.7, A=480.0, B=2085.0, alpha=0.35, beta=0.37)


def grid(noise: float = 0.003, seed: int = 0, bend: float = 0.0) -> pd.DataFrame:
    """64 runs under a known law; ``bend`` adds that much ln loss per squared e-fold of compute beyond 1e18."""
    rng = np.random.default_rng(seed)
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 8), np.geomspace(3e8, 3e10, 8)))
    far = np.maximum(np.log(N * D / 1e18), 0.0)
    loss = HOFFMANN.loss(N, D) * np.exp(noise * rng.standard_normal(len(N)) + bend * far**2)
    return pd.DataFrame({"params": N, "tokens": D, "loss": loss})


def fitted(frame: pd.DataFrame, **options: object) -> Fit:
    return fit(frame, draws=20, **options)  # type: ignore[arg-type]


def test_a_perfect_law_has_no_misfit() -> None:
    found = fitted(sweep(noise=0.0), gamma=1.0)
    for misfit in found.misfit.values():
        assert misfit.noise < 1e-4
        assert misfit.growth < 1e-4
        assert misfit.better_teacher_growth < 1e-3


def test_a_law_that_holds_keeps_the_noise_and_grows_little() -> None:
    misfits = [fitted(grid(seed=seed)).misfit["supervised"] for seed in range(6)]
    assert np.mean([misfit.noise for misfit in misfits]) == pytest.approx(0.003, rel=0.25)
    assert np.mean([misfit.growth for misfit in misfits]) < 0.002
    assert sum(misfit.inside for misfit in misfits) > 0.8 * sum(misfit.held_out for misfit in misfits)


def test_a_law_that_fails_at_large_compute_is_found_out() -> None:
    bent = fitted(grid(bend=0.004)).misfit["supervised"]
    assert bent.growth > 3 * fitted(grid()).misfit["supervised"].growth
    assert bent.growth > 0.003


def test_one_row_at_ten_deviations_widens_little() -> None:
    frame = grid(noise=0.01)
    clean = fitted(frame).misfit["supervised"]
    for row in (0, 27, 63):  # the cheapest, one in the middle, the dearest
        worse = frame.assign(loss=frame["loss"].where(frame.index != row, frame["loss"] * np.exp(0.1)))
        soiled = fitted(worse).misfit["supervised"]
        assert float(soiled.sd(1e8, 3e9)) < 1.35 * float(clean.sd(1e8, 3e9))  # among the runs
        assert float(soiled.sd(1e10, 3e11)) < 1.7 * float(
            clean.sd(1e10, 3e11)
        )  # a hundred times their compute


def test_the_report_says_how_many_lay_inside() -> None:
    found = fitted(sweep(noise=0.01, seed=2))
    counted = [held for held in found.held_out if held.inside is not None]
    assert {held.rule for held in counted} >= {"largest compute", "best teachers", "weakest teachers"}
    assert all(0 <= held.inside <= len(held.runs) for held in counted if held.inside is not None)
    for law, misfit in found.misfit.items():
        mine = [held for held in counted if held.law == law]
        assert misfit.inside == sum(held.inside or 0 for held in mine)
        assert misfit.held_out == sum(len(held.runs) for held in mine)
        assert f"{misfit.inside} of {misfit.held_out} runs left out lay inside 90 %" in found.summary()
    assert fit(sweep(noise=0.01), draws=20, held_out=False).misfit == {}


def test_gamma_is_free_under_its_prior_unless_there_are_none() -> None:
    few = grid(noise=0.01).iloc[[0, 7, 10, 27, 36, 45, 56, 63]].reset_index(drop=True)
    assert 0.2 < float(fitted(few).supervised.gamma) < 0.999
    without = fitted(grid(), objective=Objective(priors=False), held_out=False)
    assert without.supervised.gamma == 1.0
    assert any("without priors" in note for note in without.notes)
