"""Settings that fit, check and compare_laws share: options that apply, gamma, and the least number of runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from samples_of_fits import DISTILLED, FIGURE1, TRUTH, sweep

from fits import Objective, check, fit, validate
from fits.checks.comparison.compare_laws import compare_laws
from fits.estimation.joint import Recipe
from scaling import EffectiveTokensLaw, InputError

SUPERVISED = sweep(noise=0.003).query("kind == 'supervised'")
SIMPLE, CAPACITY = "effective-tokens", "effective-tokens-capacity"


def free_gamma(law: EffectiveTokensLaw, seed: int) -> pd.DataFrame:
    """A sweep under the paper's supervised law, whose gamma is .452, with .3 % noise."""
    rng = np.random.default_rng(seed)
    N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e8, 8e9, 5), np.geomspace(2e9, 2e11, 4)))
    first = pd.DataFrame({"kind": "supervised", "params": N, "tokens": D, "loss": FIGURE1.loss(N, D)})
    first["loss"] *= np.exp(0.003 * rng.standard_normal(len(first)))
    ordered = np.sort(first["loss"])
    teachers = np.linspace(ordered[0], ordered[int(0.8 * len(ordered))], 5)
    grid = np.meshgrid(np.geomspace(1.4e8, 2e9, 3), np.geomspace(4e9, 1e11, 3), teachers)
    N, D, L_T = (axis.ravel() for axis in grid)
    loss = law.loss(N, D, L_T, FIGURE1) * np.exp(0.003 * rng.standard_normal(len(N)))
    columns = {"kind": "distillation", "params": N, "tokens": D, "teacher_loss": L_T, "loss": loss}
    return pd.concat([first, pd.DataFrame(columns)], ignore_index=True)


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_law_that_made_the_runs_wins_where_gamma_is_not_1(seed: int) -> None:
    """With gamma held at 1 the capacity variant won each of 12 such sweeps, whichever law had made them."""
    for law, variant in ((SIMPLE, "simple"), (CAPACITY, "capacity")):
        truth = EffectiveTokensLaw(k=1.4, q=9.0, eps=0.025, variant=variant)
        found = compare_laws(free_gamma(truth, seed), [SIMPLE, CAPACITY], starts=4)
        scores = {score.law: score for score in found.scores}
        assert min(scores, key=lambda name: scores[name].bic) == law
        assert min(scores, key=lambda name: scores[name].mean) == law


def test_gamma_is_decided_alike_by_the_fit_and_the_comparison() -> None:
    frame = free_gamma(DISTILLED, 0)
    compared = compare_laws(frame, [SIMPLE], starts=4)
    found = fit(frame, laws=[SIMPLE], draws=20, held_out=False)
    assert found.supervised.gamma == pytest.approx(0.452, abs=0.1)
    without = Objective(priors=False)
    found = fit(frame, laws=[SIMPLE], draws=20, objective=without, held_out=False)
    (said,) = [note for note in found.notes if "gamma" in note]
    assert said in compare_laws(frame, [SIMPLE], starts=4, objective=without).notes
    assert "gamma" not in str(compare_laws(frame, [SIMPLE], starts=4, gamma=1.0))
    pinned = compare_laws(frame, [SIMPLE], starts=4, fixed={"gamma": 1.0})
    assert pinned.scores[0].rmse > 1.2 * compared.scores[0].rmse


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"laws": ["efective-tokens"]}, "unknown law 'efective-tokens'"),
        ({"laws": ["published"]}, "no 'published' law can be fitted: the table has no distillations"),
        ({"laws": "published"}, "laws must be a list of names"),
        ({"fixed": {"k": 1.4}}, "cannot fix k; coefficients that can be fixed here: E, gamma"),
        ({"fixed": {"gama": 1.0}}, "cannot fix gama"),
        ({"fixed": {"E": np.inf}}, "E is fixed at inf; coefficients must be positive"),
        ({"joint": True}, "the table has no distillations: leave them out"),
        ({"joint": False}, "the table has no distillations: leave them out"),
        ({"gamma": "fre"}, "gamma must be 'auto', 'free' or a positive number, not 'fre'"),
        ({"gamma": -1.0}, "gamma must be 'auto', 'free' or a positive number"),
        ({"gamma": "free", "fixed": {"gamma": 1.0}}, "gamma is given twice"),
        ({"objective": Objective(standard_errors=True)}, "column 'loss_se', which the table lacks"),
    ],
)
def test_options_without_effect_on_supervised_runs_are_refused(
    options: Mapping[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        fit(SUPERVISED, draws=20, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gamma": "free"}, "gamma = free applies to a fitted supervised law, which is given"),
        ({"gamma": "some"}, "gamma must be 'auto', 'free' or a positive number"),
        ({"tied": True}, "tied sets alpha = beta in the supervised law, which is given"),
        ({"joint": False}, "the supervised law is given: leave them out"),
        ({"fixed": {"E": 1.5}}, "cannot fix E; coefficients that can be fixed here: k, q, eps"),
    ],
)
def test_options_of_a_supervised_law_that_is_given_are_refused(
    options: Mapping[str, object], said: str
) -> None:
    frame = sweep(noise=0.003)
    with pytest.raises(InputError, match=said):
        fit(frame, supervised=TRUTH, draws=20, **options)  # type: ignore[arg-type]
    if "fixed" not in options:
        with pytest.raises(InputError, match=said):
            compare_laws(frame, supervised=TRUTH, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({}, 6),
        ({"tied": True}, 5),
        ({"fixed": {"E": 1.6}}, 5),
        ({"fixed": {"E": 1.6}, "tied": True}, 4),
        ({"gamma": "free"}, 6),  # its prior holds it
        ({"fixed": {"gamma": 1.0}}, 6),
    ],
)
def test_the_least_number_of_runs_is_one_more_than_the_free_coefficients(
    options: Mapping[str, object], least: int
) -> None:
    picked = SUPERVISED.iloc[[0, 3, 5, 10, 12, 15, 9]].reset_index(drop=True)
    enough, few = picked.iloc[:least], picked.iloc[: least - 1]
    found = fit(enough, draws=20, **options).primary_estimate  # type: ignore[arg-type]
    held = "supervised ln gamma" in found.model.names and bool(found.problem.precision.any())
    assert found.model.size == least - 1 + held
    assert not check(validate(enough), **options).refused  # type: ignore[arg-type]
    said = f"{least - 1} supervised runs cannot determine the {least - 1} free coefficients"
    with pytest.raises(InputError, match=said):
        fit(few, draws=20, **options)  # type: ignore[arg-type]
    assert said in str(check(validate(few), **options))  # type: ignore[arg-type]


def test_without_priors_a_free_gamma_needs_a_run_more() -> None:
    assert Recipe(laws=()).free().min_supervised_runs == 6
    assert Recipe(laws=(), objective=Objective(priors=False)).free().min_supervised_runs == 7


def test_distillations_are_counted_from_the_laws_free_coefficients() -> None:
    def free(law: str, **pins: float) -> int:
        return Recipe(laws=(law,), pins=pins).free().distillation

    assert [free(SIMPLE), free(SIMPLE, k=1.4), free(SIMPLE, k=1.4, q=9.0)] == [3, 2, 1]
    assert [free("published"), free("published-7"), free("published-9"), free("published", gamma=1.0)] == [
        8,
        7,
        9,
        8,
    ]
    frame = sweep(noise=0.003)
    three = pd.concat([SUPERVISED, frame.query("kind == 'distillation'").iloc[[0, 9, 19]]], ignore_index=True)
    found = fit(three, fixed={"k": 1.4}, draws=20, held_out=False)
    assert found.distillation[SIMPLE].k == pytest.approx(1.4)
    assert "cannot determine" not in found.summary()
    with pytest.raises(InputError, match="3 distillations cannot determine the 3 free coefficients"):
        fit(three, draws=20)


def test_a_free_gamma_on_few_runs_leaves_out_what_a_refit_can_spare() -> None:
    """Half of twelve runs would leave six, of the seven that six coefficients need without priors."""
    without = Objective(priors=False)
    frame = sweep(noise=0.003, sizes=(1e4, 1e5), tokens=tuple(np.geomspace(2.5e5, 8e6, 6)), students=())
    assert "largest sizes" not in {
        held.rule for held in fit(frame, gamma="free", draws=20, objective=without).held_out
    }


def line(N: np.ndarray, D: np.ndarray) -> str:
    loss = TRUTH.loss(N, D) * np.exp(0.003 * np.random.default_rng(0).standard_normal(len(N)))
    return str(check(validate(pd.DataFrame({"params": N, "tokens": D, "loss": loss}))))


def test_one_isoflop_profile_is_named_with_its_cure() -> None:
    N = np.geomspace(1e7, 1e9, 9)
    for D in (1e19 / (6 * N), 1.2e19 / (6 * N) ** 1.02):
        said = line(N, D)
        assert "one IsoFLOP profile identifies the best size for that budget" in said
        assert "Add a second budget, at least a factor of 4 away" in said
        assert "tokens per parameter everywhere" not in said
    assert "all supervised runs have one compute (6 N D = 1e+19 FLOPs)" in line(N, 1e19 / (6 * N))
    two = line(np.tile(N, 2), np.concatenate([1e19 / (6 * N), 4e19 / (6 * N)]))
    assert "IsoFLOP" not in two
    assert "everywhere" not in two


def test_tokens_that_rise_with_parameters_are_given_as_a_range() -> None:
    N = np.geomspace(1e7, 1e9, 9)
    assert "20 tokens per parameter everywhere" in line(N, 20 * N)
    assert "5 to 50 tokens per parameter)" in line(N, 5 * N * (N / 1e7) ** 0.5)


def test_two_levels_are_enough_for_an_exponent_where_the_asymptote_is_held() -> None:
    table = validate(sweep(noise=0.003, sizes=(1e4, 1e5), students=()))
    assert "an exponent and an asymptote cannot be separated" in str(check(table))
    assert "an exponent and an asymptote" not in str(check(table, fixed={"E": 1.6}))
