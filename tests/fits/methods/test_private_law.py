"""Law of private text: recovered from synthetic runs, refused where it cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import fits
from fits.methods.private_text import ways_of
from fits.published.private_kjv import build
from scaling.errors import InputError
from scaling.private.accounting import rho_of
from scaling.private.law import DEFAULT_LAW, PrivateTextLaw

TRUTH = {"hot": (4000.0, 4.6, 2.2), "cold": (500.0, 4.9, 1.1)}
"""Released tokens at the middle of the design, E and B, by votes."""
A, ALPHA, BETA, E_PUBLIC = 40.0, 0.5, 0.3, 5.0


def synthetic(sd: float = 0.01, released_sd: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """Runs of a known law: two numbers of teachers, four budgets, three sizes, two seeds."""
    draws, rows = np.random.default_rng(seed), []
    budgets = {epsilon: rho_of(epsilon, 1e-5) for epsilon in (2, 4, 8, 16)}
    middle = np.exp(np.mean(np.log(list(budgets.values()))))

    def add(method: str, loss: float, about: dict[str, Any]) -> None:
        for params in (4e3, 7e3, 22e3):
            for number in range(2):
                noisy = loss + A * params**-ALPHA + sd * draws.standard_normal()
                rows.append(
                    {"method": method, "params": params, "tokens": 65536.0, "seed": number, "loss": noisy}
                    | {"data_seed": 0}
                    | about
                )

    for votes, (c, limit, amplitude) in TRUTH.items():
        for n in (300, 1000):
            for epsilon, rho in budgets.items():
                mean = c * (n / np.sqrt(3e5)) ** 1.7 * (rho / middle) ** 0.9
                released = float(np.round(mean * np.exp(released_sd * draws.standard_normal())))
                method = f"ce=1 PrivateText votes={votes} teachers={n} epsilon={epsilon}"
                ledger = {"released_tokens": released, "rho": rho, "delta": 1e-5, "private_teachers": n}
                add(method, limit + amplitude * released**-BETA, ledger)
    add("ce=1 MeanText public=True", E_PUBLIC, {})
    add("ce=1 MeanText", 4.5, {})
    return pd.DataFrame(rows)


def fitted(**options: Any) -> PrivateTextLaw:
    return fits.private_text_law(synthetic(**options), private_tokens=750_000, draws=60)


@pytest.fixture(scope="module")
def law() -> PrivateTextLaw:
    return fitted()


def test_coefficients_are_recovered_within_their_draws(law: PrivateTextLaw) -> None:
    truth = {way: {"c": c, "u": 1.7, "w": 0.9, "E": E} for way, (c, E, _) in TRUTH.items()}
    truth["shared"] = {"alpha": ALPHA, "beta": BETA, "E_public": E_PUBLIC}
    for way, values in truth.items():
        for name, true in values.items():
            low, high = np.quantile(law.draws[way][name], [0.005, 0.995])
            width = high - low
            assert low - 0.3 * width <= true <= high + 0.3 * width, (way, name, low, true, high)
    assert law.loss_sd == pytest.approx(0.01, rel=0.25)
    assert law.released_sd["hot"] == pytest.approx(0.1, rel=0.6)
    assert law.region["teachers"] == (300, 1000)
    assert law.region["student_params"] == (4e3, 22e3)


def test_predictions_inside_the_runs_are_sharp(law: PrivateTextLaw) -> None:
    for way, (c, limit, amplitude) in TRUTH.items():
        assert law.loss(way, 7e3, c) == pytest.approx(
            limit + amplitude * c**-BETA + A * 7e3**-ALPHA, abs=0.01
        )
        assert np.std(law.loss(way, 7e3, c, sampled=True)) < 0.02
    assert law.public_loss(7e3) == pytest.approx(E_PUBLIC + A * 7e3**-ALPHA, abs=0.01)


def test_exact_runs_give_the_exact_law() -> None:
    law = fitted(sd=0.0, released_sd=0.0)
    for way, (c, limit, amplitude) in TRUTH.items():
        assert law.coefficients[way]["E"] == pytest.approx(limit, abs=1e-3)
        assert law.coefficients[way]["B"] == pytest.approx(amplitude, rel=1e-2)
        assert law.coefficients[way]["u"] == pytest.approx(1.7, abs=0.02)  # released tokens are whole numbers
        assert float(law.released(way, np.sqrt(3e5), law.rho_0)) == pytest.approx(c, rel=0.02)
    assert law.loss_sd < 1e-5


def test_a_law_is_read_as_it_was_written(law: PrivateTextLaw, tmp_path) -> None:
    law.save(tmp_path / "law.json")
    again = PrivateTextLaw.load(tmp_path / "law.json")
    assert again.to_dict() == law.to_dict()
    assert again.ways == ("hot", "cold")


def test_ways_are_told_apart_by_what_differs() -> None:
    methods = [
        "forward-kl ce=1 PrivateText order=3 prior=0.5 epsilon=2.0",
        "forward-kl ce=1 PrivateText order=3 prior=0.5 votes=cold teachers=300 epsilon=4.0 sigma=9",
        "forward-kl ce=1 PrivateText temperature=0.5 order=3 prior=0.5 epsilon=2.0",
    ]
    assert ways_of(methods) == ["hot", "cold", "hot, temperature=0.5"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.drop(columns="rho"), "no column 'rho'; a law of private text needs method, params"),
        (lambda t: t[~t["method"].str.contains("public")], "found 96 and 0"),
        (lambda t: t[t["rho"].isna()], "found 0 and 6"),
        (
            lambda t: t[~t["method"].str.contains("teachers=300|epsilon=16")],
            "hot: 3 releases are too few for a law, which needs 4 of one way",
        ),
        (lambda t: t.assign(rho=t["rho"] * 0 + 0.1), "of one budget only, for a law of released tokens"),
    ],
)
def test_what_no_law_follows_from_is_refused(change: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        fits.private_text_law(change(synthetic()), private_tokens=750_000, draws=5)


def test_a_way_of_few_releases_is_left_out() -> None:
    runs = synthetic()
    few = runs["method"].str.contains("votes=cold") & runs["method"].str.contains(
        "epsilon=2|epsilon=4|teachers=300"
    )
    law = fits.private_text_law(runs[~few], private_tokens=750_000, draws=5)
    assert law.ways == ("hot",)


def test_one_number_of_teachers_takes_the_square() -> None:
    runs = synthetic()
    law = fits.private_text_law(
        runs[~runs["method"].str.contains("teachers=300")], private_tokens=750_000, draws=5
    )
    assert law.coefficients["hot"]["u"] == 2.0
    assert set(law.draws["hot"]["u"]) == {2.0}


def test_the_law_that_ships_is_that_of_the_shipped_runs() -> None:
    shipped, again = PrivateTextLaw.load(DEFAULT_LAW), build(draws=3)
    for way, values in shipped.coefficients.items():
        for name, value in values.items():
            assert again.coefficients[way][name] == pytest.approx(value, rel=1e-6), (way, name)
    assert again.region == dict(shipped.region)
    assert again.provenance == shipped.provenance
