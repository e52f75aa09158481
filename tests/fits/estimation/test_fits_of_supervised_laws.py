"""Fits of supervised laws other than the power law: recovery of a truth, comparison, files, refusals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from samples_of_fits import DISTILLED, sweep
from test_supervised_laws import FARSEER, OVER_TRAINING

import fits
from fits.estimation.joint import draw_laws
from fits.estimation.model import SUPERVISED_COORDINATES, Rows
from scaling import Calibration, InputError, Question, plan
from scaling.laws import AnySupervisedLaw, OverTrainingLaw
from scaling.laws.registry import LAW_MODULES, SUPERVISED_LAWS

OWN = """
import numpy as np
import fits

def saturating(N, D, E, a, b, p):
    return E + a * (N / 1e8) ** -p + b * np.log1p((D / 1e10) ** -p)

law = fits.register_law("saturating", saturating, {"E": 1.5, "a": 0.5, "b": 0.5, "p": 0.4}, kind="supervised")
"""


def runs(law: AnySupervisedLaw, noise: float = 0.002, seed: int = 1) -> pd.DataFrame:
    """Return 48 supervised runs of eight sizes, 5 to 320 tokens per parameter."""
    rng = np.random.default_rng(seed)
    N = np.repeat(np.geomspace(2e7, 3e9, 8), 6)
    D = N * np.tile(np.geomspace(5, 320, 6), 8)
    return pd.DataFrame({"N": N, "D": D, "L": law.loss(N, D) * np.exp(noise * rng.standard_normal(48))})


@pytest.mark.parametrize(
    ("name", "truth", "error"), [("over-training", OVER_TRAINING, 0.002), ("farseer", FARSEER, 0.006)]
)
def test_a_truth_is_recovered(name: str, truth: AnySupervisedLaw, error: float, tmp_path: Path) -> None:
    found = fits.fit(runs(truth), laws=[name], draws=60)
    assert found.primary_estimate.status == "converged"
    N, D = np.array([1e8, 1e10]), np.array([1e10, 1e12])  # the second is 10 times larger than any run
    assert found.supervised.loss(N, D) == pytest.approx(truth.loss(N, D), rel=error)
    sampled = found.calibration.sampled_supervised().loss(N, D)
    assert sampled.shape == (60, 2)
    assert np.all(np.abs(sampled.mean(axis=0) / truth.loss(N, D) - 1) < 3 * error)
    assert all(each.inside is not None and each.inside >= 0.6 * len(each.runs) for each in found.held_out)
    back = Calibration.load(found.calibration.save(tmp_path / "made.json"))
    assert back.supervised == found.supervised
    assert plan(Question(student_params=1e9, budget=1e21), back).direct[0].loss.value == pytest.approx(
        float(
            back.supervised.loss(1e9, plan(Question(student_params=1e9, budget=1e21), back).direct[0].tokens)
        )
    )


def test_exponents_of_the_over_training_law_are_halves_and_those_of_farseer_are_local() -> None:
    tied = fits.fit(runs(OVER_TRAINING), laws=["over-training"], draws=20, held_out=False).exponents
    assert tied is not None and not tied.local
    assert tied.params.value == pytest.approx(0.5, abs=1e-12)
    assert tied.loss.value == pytest.approx(OVER_TRAINING.eta, rel=0.02)
    local = fits.fit(runs(FARSEER), laws=["farseer"], draws=20, held_out=False).exponents
    assert local is not None and local.local
    assert "; at the largest run" in "\n".join(local.lines())


def test_distillation_laws_stand_on_the_supervised_law_asked_for() -> None:
    table = sweep(noise=0.002)
    found = fits.fit(table, laws=["over-training", "effective-tokens"], draws=40, held_out=False)
    assert isinstance(found.supervised, OverTrainingLaw)
    assert set(found.draws) == {"supervised", "effective-tokens"}
    apart = fits.fit(table, laws=["over-training", "effective-tokens"], draws=40, joint=False, held_out=False)
    assert set(apart.estimates) == {"supervised", "effective-tokens"}
    assert apart.distillation["effective-tokens"].k == pytest.approx(DISTILLED.k, rel=0.5)  # type: ignore[attr-defined]
    again = draw_laws(apart.estimates, apart.recipe, 40, "runs")
    assert np.array_equal(again["effective-tokens"]["k"], apart.draws["effective-tokens"]["k"])


def test_the_law_that_made_the_runs_predicts_those_left_out_best() -> None:
    found = fits.compare_laws(runs(FARSEER), ["over-training", "farseer"], starts=4)
    assert (found.kind, found.runs, found.preferred) == ("supervised", 48, "farseer")
    assert list(found.criteria())[3:] == [
        "size out",
        "few to many tokens",
        "small to large",
        "largest compute",
    ]
    assert "left out is that of farseer" in str(found) and "bias, weak teachers" not in str(found)
    assert found.to_dict()["kind"] == "supervised" and "<b>48 supervised runs under" in found._repr_html_()
    simple = fits.compare_laws(runs(OVER_TRAINING), ["over-training", "power-law"], starts=4)
    assert simple.preferred == "over-training"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder with a module of a law; nothing stays registered."""
    (tmp_path / "laws_of_a_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    forget()


def forget() -> None:
    """Leave the process as one in which the law of the test was never registered."""
    for registered in (SUPERVISED_LAWS, SUPERVISED_COORDINATES):
        registered.pop("saturating", None)
    sys.modules.pop("laws_of_a_test", None)


def test_a_law_of_ones_own_is_loaded_by_module_and_name(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fits.load_law("laws_of_a_test:law") == "saturating"
    truth: Any = SUPERVISED_LAWS["saturating"](E=1.7, a=0.6, b=0.4, p=0.35)
    table = runs(truth)
    found = fits.fit(table, laws=["laws_of_a_test:law"], draws=20, starts=6, held_out=False)
    assert found.supervised.loss(1e10, 1e12) == pytest.approx(truth.loss(1e10, 1e12), rel=0.01)
    made = found.calibration.save(own / "made.json")
    assert Calibration.load(made).supervised == found.supervised
    forget()
    with pytest.raises(InputError) as refused:
        Calibration.load(made)
    text = str(refused.value)
    assert text.startswith(
        "made.json: supervised_law: unknown law 'saturating', not registered in this process"
    )
    assert text.endswith(f"{LAW_MODULES}=laws_of_a_test:law")  # the file says where its law was
    assert "laws_of_a_test" not in sys.modules  # and nothing is imported because of it
    monkeypatch.setenv(LAW_MODULES, "laws_of_a_test:law")
    assert repr(Calibration.load(made).supervised).startswith("SaturatingLaw(E=1.")
    forget()
    assert fits.fit(table, laws=["saturating"], draws=20, starts=1, held_out=False).supervised


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("laws_of_a_test", "must be MODULE:NAME"),
        ("laws_of_a_test:none", "holds no registered law 'none'; write none = fits.register_law"),
        ("no_such_module:law", "importing no_such_module failed: ModuleNotFoundError"),
    ],
)
def test_places_without_a_law_are_refused(own: Path, place: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fits.load_law(place)


def test_options_of_the_power_law_are_refused_under_another() -> None:
    table = runs(OVER_TRAINING)
    for options, message in (
        ({"tied": True}, "tied sets alpha = beta in the power law"),
        ({"gamma": "free"}, "gamma is a coefficient of the power law"),
        ({"fixed": {"k": 1.0}}, "cannot fix k; coefficients that can be fixed here: E"),
        ({"supervised": OVER_TRAINING}, "the supervised law is given"),
    ):
        with pytest.raises(InputError, match=message):
            fits.fit(table, laws=["over-training"], **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a fit has one supervised law, not 2"):
        fits.fit(table, laws=["over-training", "farseer"])
    with pytest.raises(InputError, match="needs the irreducible loss E"):
        fits.fit(sweep(), laws=["farseer", "effective-tokens"])
    with pytest.raises(InputError, match="a law of the other kind has this name"):
        fits.register_law("published", lambda N, D, E: E, {"E": 1.0}, kind="supervised")
    with pytest.raises(InputError, match="signed must list coefficients"):
        fits.register_law("one", lambda N, D, E: E, {"E": 1.0}, kind="supervised", signed=["b"])


def test_coefficients_of_either_sign() -> None:
    def rising(N: Any, D: Any, level: Any, tilt: Any) -> Any:
        return 2.0 + 0.1 * np.exp(level) + tilt * np.log(N * D / 1e19)

    fits.register_law(
        "rising", rising, {"level": 0.5, "tilt": 0.0}, kind="supervised", signed=["level", "tilt"]
    )
    try:
        truth: Any = SUPERVISED_LAWS["rising"](level=-0.7, tilt=-0.05)
        found = fits.fit(runs(truth, noise=0.001), laws=["rising"], draws=20, held_out=False)
        assert isinstance(found.supervised, SUPERVISED_LAWS["rising"])  # type: ignore[arg-type]
        assert found.supervised.tilt == pytest.approx(-0.05, abs=0.002)  # type: ignore[attr-defined]
        assert found.calibration.supervised.level == pytest.approx(-0.7, abs=0.1)  # type: ignore[attr-defined]
    finally:
        del SUPERVISED_LAWS["rising"], SUPERVISED_COORDINATES["rising"]


def test_farseer_needs_the_signs_of_its_paper() -> None:
    coordinates = SUPERVISED_COORDINATES["farseer"](Rows.of(fits.validate(runs(FARSEER))).center())
    back = coordinates.law(coordinates.theta(FARSEER)[None])
    assert back.loss(1e9, 1e11)[0, 0] == pytest.approx(float(FARSEER.loss(1e9, 1e11)), rel=1e-12)
    with pytest.raises(InputError, match="alpha > 0, beta < 0 and gamma > 0"):
        fits.fit(sweep(), laws=["published"], supervised=replace(FARSEER, beta=0.1), held_out=False)
