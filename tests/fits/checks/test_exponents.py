"""Scaling exponents by a law of the loss and by IsoFLOP profiles, on truths and on public sweeps."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

from fits import fit, read_runs
from fits.checks.isoflop import isoflop_profiles
from fits.table.runs import validate
from scaling import InputError, SupervisedLaw
from scaling.laws import compute_optimal, scaling_exponents

LAW = SupervisedLaw(E=1.8, A=480.0, B=2085.0, alpha=0.348, beta=0.366)
SWEEPS = Path(os.environ.get("DISTLAW_PUBLIC_SWEEPS", "absent"))
"""A directory of public sweeps, which are not part of the package."""


def profiles(law: SupervisedLaw, noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Nine sizes around the optimum of each of seven computes."""
    rng = np.random.default_rng(seed)
    C = np.repeat(np.geomspace(1e17, 1e20, 7), 9)
    N = compute_optimal(law, C).params * np.tile(np.geomspace(0.25, 4, 9), 7)
    D = C / (6 * N)
    loss = law.loss(N, D) * np.exp(noise * rng.standard_normal(len(N)))
    return pd.DataFrame({"params": N, "tokens": D, "loss": loss})


@pytest.mark.parametrize("gamma", [1.0, 0.452])
def test_the_closed_form_is_the_minimum(gamma: float) -> None:
    law = SupervisedLaw(E=1.22, A=3355.0, B=18186.0, alpha=0.408, beta=0.431, gamma=gamma)
    for C in (1e18, 1e22):
        best = minimize_scalar(
            lambda ln_N, C=C: float(law.loss(np.exp(ln_N), C / (6 * np.exp(ln_N)))), bounds=(5, 40),
            options={"xatol": 1e-9},
        )  # fmt: skip
        found = compute_optimal(law, C)
        assert np.log(found.params) == pytest.approx(best.x, abs=1e-4)
        assert found.loss == pytest.approx(best.fun, rel=1e-12)
        assert 6 * found.params * found.tokens == pytest.approx(C)


def test_exponents_are_slopes_of_the_optimum() -> None:
    C = np.array([1e20, 1.001e20])
    found, slopes = compute_optimal(LAW, C), scaling_exponents(LAW)
    step = np.log(C[1] / C[0])
    assert np.log(found.params[1] / found.params[0]) / step == pytest.approx(slopes.params)
    assert np.log(found.tokens[1] / found.tokens[0]) / step == pytest.approx(slopes.tokens)
    excess = found.loss - LAW.E
    assert -np.log(excess[1] / excess[0]) / step == pytest.approx(slopes.loss)


def test_a_fit_reports_exponents_with_intervals_that_hold_the_truth() -> None:
    found = fit(profiles(LAW, noise=0.003), draws=100, held_out=False, gamma=1.0, isoflop=True)
    truth = scaling_exponents(LAW)
    for name in ("params", "tokens", "loss"):
        spread = getattr(found.exponents, name)
        assert spread.low < getattr(truth, name) < spread.high
        assert spread.low < spread.value < spread.high
    largest, _, hundred = found.exponents.optimal
    assert largest.flops == pytest.approx(1e20)
    assert hundred.flops == pytest.approx(1e22)
    at = compute_optimal(LAW, 1e22)
    assert hundred.params.low < at.params < hundred.params.high
    assert hundred.loss.low < at.loss < hundred.loss.high
    assert hundred.params.high / hundred.params.low > largest.params.high / largest.params.low
    report = json.loads(found.report("json"))
    assert report["exponents"]["params"]["value"] == found.exponents.params.value
    assert len(report["isoflop"]["profiles"]) == 7
    text = found.report()
    assert "N* ~ C^a" in text
    assert "IsoFLOP profiles (7 computes" in text
    assert "do not overlap" not in text
    assert "IsoFLOP" in found.report("html")


def test_profiles_without_noise_find_the_exponent() -> None:
    found = isoflop_profiles(validate(profiles(LAW)))
    assert found.params.value == pytest.approx(scaling_exponents(LAW).params, abs=0.01)
    assert found.params.value + found.tokens.value == pytest.approx(1)
    assert found.noise < 2e-3
    optimum = compute_optimal(LAW, [each.flops for each in found.profiles])
    assert [each.params.value for each in found.profiles] == pytest.approx(optimum.params, rel=0.05)


def test_profiles_cover_the_truth_as_often_as_they_say() -> None:
    truth = scaling_exponents(LAW).params
    found = [isoflop_profiles(validate(profiles(LAW, 0.003, seed)), seed) for seed in range(30)]
    inside = [each.params.low < truth < each.params.high for each in found]
    assert np.mean(inside) >= 0.75
    assert np.mean([each.noise for each in found]) == pytest.approx(0.003, rel=0.25)


def test_a_profile_whose_minimum_lies_at_its_end_is_left_out_and_named() -> None:
    table = profiles(LAW)
    C = 6 * table["params"] * table["tokens"]
    first = C < 1.5e17
    cut = table[~first | (table["params"] > table[first]["params"].quantile(0.6))]
    found = isoflop_profiles(validate(cut))
    assert len(found.profiles) == 6
    assert list(found.skipped.values()) in (
        ["4 sizes"],
        ["the smallest size has the least loss"],
        ["3 sizes"],
    )


def test_a_table_without_profiles_is_an_input_error() -> None:
    rng = np.random.default_rng(0)
    N, D = 10 ** rng.uniform(6, 9, 30), 10 ** rng.uniform(8, 11, 30)
    table = pd.DataFrame({"params": N, "tokens": D, "loss": LAW.loss(N, D)})
    with pytest.raises(InputError, match="3 or more computes"):
        fit(table, draws=20, held_out=False, isoflop=True)


@pytest.mark.skipif(not SWEEPS.is_dir(), reason="DISTLAW_PUBLIC_SWEEPS names no directory of public sweeps")
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("porian2024_refinedweb_cosine", 0.571),
        ("porian2024_kaplan", 0.835),
        ("porian2024_refinedweb_short_warmup", 0.602),
    ],
)
def test_published_exponents_of_porian_et_al(name: str, published: float) -> None:
    """Porian et al. 2024, from profiles of their own runs."""
    found = isoflop_profiles(validate(read_runs(SWEEPS / f"{name}.csv")))
    assert found.params.value == pytest.approx(published, abs=0.02)
    assert found.params.low < published < found.params.high
