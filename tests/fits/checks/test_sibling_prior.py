"""A sibling's law as a prior: the published map of three runs, its derivatives, and when it is given up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sweeps
from fits import fit
from fits.estimation.estimate import Objective, fit_model
from fits.estimation.laws.sibling import Sibling, SiblingCoordinates
from fits.estimation.model import Model, Rows
from fits.table.runs import validate
from scaling import Calibration, EffectiveTokensLaw, InputError, SupervisedLaw

KJV = Sibling(
    name="kjv",
    law=SupervisedLaw(E=1.260714, A=72.9412, B=7328.46, alpha=0.361525, beta=0.645328, gamma=0.575302),
    largest_compute=6 * 159280 * 4194304,
)
"""Law of 35 supervised runs on the King James Bible, sizes 7e3 to 1.6e5."""
CELLS = [(13472, 524288), (55728, 1048576), (106944, 2097152)]
QUICKSTART = Path(__file__).parents[3] / "notebooks" / "data" / "quickstart-runs.csv"


@pytest.fixture(scope="module")
def supervised() -> pd.DataFrame:
    """Supervised runs of the sweep permissive with seed 0."""
    table = sweeps.shipped("permissive")
    return table[(table["kind"] == "supervised") & (table["seed"] == 0)]


@pytest.fixture(scope="module")
def three(supervised: pd.DataFrame) -> pd.DataFrame:
    """Three of them, that a map is fitted to."""
    return supervised.set_index(["params", "tokens"]).loc[CELLS].reset_index()


def test_three_runs_map_the_law_of_another_corpus_as_published(
    three: pd.DataFrame, supervised: pd.DataFrame
) -> None:
    """Least squares in ln L with equal weights, noise 0.01 and prior widths (0.24, 0.20, 0.10)."""
    model = Model(Rows.of(validate(three)), None, sibling=KJV)
    found = fit_model(model, Objective(delta=np.inf), sigma=np.full(3, 0.01))
    assert found.theta == pytest.approx([-0.10271, 0.11919, 0.07776], abs=6e-6)
    assert found.standard_errors == pytest.approx([0.127, 0.109, 0.070], abs=6e-4)
    law = found.supervised
    assert law.loss([4e5 + 400, 4e5 + 400, 159280, 400400], [8388608, 4194304, 4194304, 524288]) == (
        pytest.approx([2.21981, 2.31814, 2.49545, 2.96709], abs=6e-6)
    )
    N, D, L = (supervised[name].to_numpy(float) for name in ("params", "tokens", "loss"))
    assert len(L) == 25
    assert np.sqrt(np.mean((law.loss(N, D) - L) ** 2)) == pytest.approx(0.03786, abs=6e-6)
    assert np.sqrt(np.mean(np.log(law.loss(N, D) / L) ** 2)) == pytest.approx(0.01253, abs=6e-6)


def test_the_map_inverts_and_its_derivatives_are_exact() -> None:
    coordinates = SiblingCoordinates(KJV, 2.0)
    theta = np.array([-0.1, 0.2, 0.07])
    law = coordinates.law(theta[None])
    assert coordinates.theta(law)[0, 0] == pytest.approx(theta)
    N, D = np.array([1e4, 1e6]), np.array([1e6, 1e8])
    columns = coordinates.columns(law, law.derivatives(N, D).own)
    for i, column in enumerate(columns):
        step = 1e-6 * np.eye(3)[i]
        up, down = (coordinates.law((theta + s * step)[None]).loss(N, D) for s in (1, -1))
        assert column == pytest.approx((up - down) / 2e-6, rel=1e-6)


def test_three_runs_with_a_sibling_predict_better_than_eight_without(
    three: pd.DataFrame, supervised: pd.DataFrame
) -> None:
    """Mean over ten draws of eight of the cheaper runs; all predict the five largest."""
    ordered = supervised.assign(compute=supervised["params"] * supervised["tokens"]).sort_values("compute")
    cheap, large = ordered.iloc[:14], ordered.iloc[-5:]

    def error(runs: pd.DataFrame, prior: Sibling | None) -> float:
        law = fit(runs, prior=prior, draws=20, held_out=False, starts=8).supervised
        return float(
            np.sqrt(np.mean(np.log(law.loss(large["params"], large["tokens"]) / large["loss"]) ** 2))
        )

    eight = [error(cheap.sample(8, random_state=seed), None) for seed in range(4)]
    assert error(three, KJV) < 0.6 * float(np.mean(eight))


def test_a_fit_says_what_the_prior_contributed_and_whether_the_sibling_covers_it(three: pd.DataFrame) -> None:
    found = fit(three, prior=KJV, draws=20, reach=1e13)
    assert [note[:43] for note in found.notes] == [
        "sibling kjv: fitted up to 4.01e12 FLOPs, an",
        "times kjv's: E 0.896 (factor 1.13 uncertain",
    ]
    assert "the runs determine 66 % of the map" in found.notes[1]
    assert ["2.5 times" in str(finding) for finding in found.findings] == [True]
    assert isinstance(found.supervised, SupervisedLaw)
    assert found.supervised.alpha == KJV.law.alpha
    assert Calibration.from_json(found.calibration.to_json()).supervised == found.supervised


def test_the_prior_is_given_up_beyond_ten_times_the_siblings_compute(supervised: pd.DataFrame) -> None:
    runs = supervised.iloc[:9]
    found = fit(runs, prior=KJV, reach=4.1e13, draws=20, starts=8)
    assert "says nothing beyond 10 times that" in found.notes[0]
    assert found.supervised == fit(runs, draws=20, starts=8).supervised


def test_constants_of_the_distillation_law_rest_on_the_siblings() -> None:
    runs = pd.read_csv(QUICKSTART).drop(columns="excluded")
    few = pd.concat(
        [runs[runs["kind"] == "supervised"].head(3), runs[runs["kind"] == "distillation"].head(2)]
    )
    found = fit(few, prior="permissive", draws=20, held_out=False)
    own = Sibling.of("permissive").distillation
    assert own is not None
    assert isinstance(law := found.distillation["effective-tokens"], EffectiveTokensLaw)
    assert np.log(law.k / own.k) == pytest.approx(0, abs=0.7)
    assert found.default == "effective-tokens"


def test_a_law_that_is_no_siblings_is_told(three: pd.DataFrame) -> None:
    per_byte = three.assign(loss=three["loss"] / 3)
    findings = fit(per_byte, prior=KJV, draws=20).findings
    assert any("standard deviations of what siblings differ by" in str(finding) for finding in findings)


@pytest.mark.parametrize(
    ("prior", "options", "message"),
    [
        (replace(KJV, vocab=50257), {}, "losses are of a vocabulary of 50257, and the table's of 512"),
        (KJV, {"gamma": 1}, "gamma = 1 applies to a law without a sibling"),
        (KJV, {"fixed": {"E": 1.0}}, "fixed E or gamma does not go with that"),
        (KJV, {"objective": Objective(priors=False)}, "priors=False"),
        (KJV, {"tied": True}, "tied does not go"),
        (KJV, {"supervised": KJV.law}, "a given supervised law does not go"),
        ("nowhere.json", {}, "no calibration 'nowhere.json'"),
    ],
)
def test_what_cannot_be_is_refused(
    three: pd.DataFrame, prior: Sibling | str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        fit(three, prior=prior, draws=20, **options)  # type: ignore[arg-type]


def test_one_run_cannot_map_a_law(three: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="1 supervised run cannot map the law of kjv"):
        fit(three.head(1), prior=KJV, draws=20)
