"""Reports, profiles and held-out checks: what tells a user how far to trust a fit."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from samples_of_fits import TRUTH, sweep

from fits import Fit, Objective, check, fit, validate
from fits.checks.heldout.heldout import extrapolation_mask
from fits.estimation.model import Rows, last_tokens
from scaling import InputError, SupervisedLaw


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(sweep(noise=0.01, seed=2), draws=60, name="a <fit>")


def test_the_report_as_text_names_what_matters(found: Fit) -> None:
    said = found.summary()
    assert "16 supervised, 24 distillation runs" in said
    assert "starts agree" in said
    assert "supervised alpha" in said
    assert "largest compute" in said
    assert "best teachers" in said
    start = next(line.split() for line in said.splitlines() if line.startswith("  ln k "))
    assert start[4:] == ["0.336", "-9.21", "..", "6.91"]  # of ln 1.4 between ln 1e-4 and ln 1e3


def test_the_report_as_json_and_html(found: Fit) -> None:
    report = json.loads(found.report("json"))
    assert report["estimates"][0]["status"] == "converged"
    assert {row["name"] for row in report["coefficients"]} >= {"E", "alpha", "k"}
    assert report["seed_noise"] is None
    page = found.report("html")
    assert page.startswith("<!doctype html>")
    assert "a &lt;fit&gt;" in page
    assert page.count('<figure><img alt="') == 4
    assert 'src="data:image/svg+xml;base64,' in page
    assert "http" not in page
    assert {row["name"] for row in report["estimates"][0]["coordinates"]} <= set(
        re.findall(r"<td[^>]*>([^<]+)", page)
    )
    cell = found._repr_html_()
    selectors = re.findall(r"([^{}]+)\{", cell[: cell.index("</style>")].removeprefix("<style>"))
    assert all(part.startswith(".distlaw-fit") for each in selectors for part in each.split(","))
    with pytest.raises(InputError, match="'text', 'json' or 'html'"):
        found.report("pdf")


def test_repeats_tell_the_seed_noise() -> None:
    frames = [sweep(noise=0.02, seed=seed).assign(seed=seed) for seed in range(6)]
    frame = frames[0].iloc[:16]
    for other in frames[1:]:
        frame = pd.concat([frame, other.iloc[:16]])
    report = json.loads(fit(frame.reset_index(drop=True), draws=20).report("json"))
    assert report["seed_noise"] == pytest.approx(0.02, rel=0.3)


def test_a_profile_is_the_curvature_where_the_problem_is_nearly_linear(found: Fit) -> None:
    profile = found.profile("ln k")
    i = found.primary_estimate.model.names.index("ln k")
    best, error = found.primary_estimate.theta[i], found.primary_estimate.standard_errors[i]
    assert profile.deviance.min() == pytest.approx(0.0, abs=0.01)
    assert profile.high - profile.low == pytest.approx(2 * 1.645 * error, rel=0.4)
    assert profile.low < best < profile.high
    with pytest.raises(InputError, match="no coordinate 'k'"):
        found.profile("k")


def test_a_profile_without_end_says_so() -> None:
    alone = sweep(noise=0.02).query("kind == 'supervised'")
    profile = fit(alone, objective=Objective(priors=False), draws=20).profile("supervised ln E")
    assert profile.low == -np.inf
    assert profile.high < np.log(TRUTH.loss(1e9, 1e12)) + 1


def test_a_profile_of_a_prediction_and_of_the_best_size(found: Fit) -> None:
    """A prediction's profile agrees with the bootstrap; a flat optimum is known badly, as it should be."""
    loss = found.profile(lambda supervised, distilled: supervised.loss(1e6, 1e7))
    draws = found.calibration.sampled_supervised().loss(1e6, 1e7)
    assert loss.best == pytest.approx(float(found.supervised.loss(1e6, 1e7)))
    assert loss.low < loss.best < loss.high
    assert loss.high - loss.low == pytest.approx(np.ptp(np.quantile(draws, [0.05, 0.95])), rel=0.6)

    def ln_best_size(supervised: SupervisedLaw, distilled: object) -> np.ndarray:
        s, C = supervised, 1e13
        ratio = np.log(s.alpha * s.A) - np.log(s.beta * s.B)
        return (ratio + s.beta * np.log(C / 6)) / (s.alpha + s.beta)

    size = found.profile(ln_best_size)
    assert size.low < float(ln_best_size(TRUTH, None)) < size.high


def test_groups_left_out_are_pooled_by_law(found: Fit) -> None:
    by_law = {held.law: held for held in found.leave_groups_out("params")}
    assert len(by_law["supervised"].runs) == 16
    assert len(by_law["effective-tokens"].runs) == 24
    assert by_law["effective-tokens"].relative < 0.03
    with pytest.raises(InputError, match="has 0 values"):
        found.leave_groups_out("color")


def test_a_run_is_left_out_with_all_of_its_checkpoints() -> None:
    """A run's other checkpoints would give away its own offset."""
    frame = sweep(noise=0.01, sizes=tuple(np.geomspace(8e3, 4e5, 12)), students=())
    frame["run"] = [f"size {N:.0f}" for N in frame["params"]]
    table = validate(frame)
    out = extrapolation_mask(table, "compute")
    assert 0 < out.sum() < len(table) / 2
    assert not set(table["run"][out]) & set(table["run"][~out])
    assert list(last_tokens(table)) == [2e6] * 48
    with pytest.raises(InputError, match="12 rows and the other checkpoints of their runs are removed"):
        fit(frame, draws=20, held_out=False).leave_groups_out("tokens")
    seeds = pd.concat([frame.assign(seed=seed) for seed in range(2)])
    assert len(np.unique(Rows.of(validate(seeds)).group)) == 24


def test_over_estimates_can_cost_more() -> None:
    frame = sweep(noise=0.02, seed=4)
    plain, cautious = (fit(frame, objective=Objective(asymmetry=a), draws=20) for a in (1.0, 5.0))
    assert np.mean(cautious.table["residual"]) > np.mean(plain.table["residual"])


def test_known_standard_errors_weigh_the_runs() -> None:
    """Half of the runs have ten times the noise and say so."""
    rng = np.random.default_rng(0)
    errors = {True: [], False: []}
    for seed in range(6):
        frame = sweep(noise=0.002, seed=seed)
        noisy = rng.random(len(frame)) < 0.5
        frame["loss"] *= np.exp(0.03 * noisy * rng.standard_normal(len(frame)))
        frame["loss_se"] = frame["loss"] * np.where(noisy, 0.03, 0.002)
        for known, of_known in errors.items():
            found = fit(frame, objective=Objective(standard_errors=known), draws=20, held_out=False)
            of_known.append(np.log(found.supervised.loss(4e5, 1e7) / TRUTH.loss(4e5, 1e7)))
    assert np.std(errors[True]) < 0.8 * np.std(errors[False])


def test_pooled_methods_are_warned_about() -> None:
    frame = sweep(noise=0.01)
    frame["method"] = np.where(frame.index % 2, "forward-kl", "reverse-kl")
    found = fit(frame, draws=20)
    assert any("2 methods (forward-kl, reverse-kl)" in str(finding) for finding in found.findings)


def test_pooled_contexts_and_unnamed_checkpoints_are_warned_about() -> None:
    frame = sweep(noise=0.01, tokens=tuple(np.geomspace(2.5e5, 4e6, 9)))
    assert not any("checkpoints" in str(finding) for finding in check(validate(frame)).findings)
    said = str(check(validate(frame.drop(columns="run"))))
    assert "up to 9 token counts of one size and teacher, in rows without a run's name" in said
    said = str(check(validate(frame.assign(context=128 + frame.index % 2))))
    assert "2 contexts (128, 129), pooled here" in said


def test_columns_that_look_exchanged_are_refused_and_losses_in_bits_warned_about() -> None:
    swapped = sweep().rename(columns={"params": "tokens", "tokens": "params"})
    with pytest.raises(InputError, match=r"tokens per parameter .* if the two are exchanged, map them"):
        validate(swapped)
    frame = sweep(noise=0.003, students=(5e3, 2e4, 6e4))  # no size that a supervised run has
    frame.loc[frame["kind"] == "distillation", "loss"] /= np.log(2)
    said = [str(finding) for finding in fit(frame, draws=20, held_out=False).findings]
    assert any("far above, both their teachers" in each and "one is in bits/token" in each for each in said)


def test_tokens_taken_from_compute_are_said() -> None:
    frame = sweep(noise=0.01)
    frame["compute"] = 6 * frame["params"] * frame["tokens"]
    found = fit(frame.drop(columns="tokens"), draws=20)
    assert "note: the tokens of 40 rows are compute / (6 params)" in found.summary()


def test_the_check_and_the_fit_say_the_same_of_distillations_alone() -> None:
    frame = validate(sweep(noise=0.01).query("kind == 'distillation'"))
    assert check(frame).refused
    assert "distillations only" in str(check(frame))
    assert not check(frame, TRUTH).refused
    assert check(validate(sweep().query("kind == 'supervised'")), TRUTH).refused


def test_worn_out_text_is_a_warning() -> None:
    """Once in the column that sweeps fill; a table without it, or with gaps in it, is no worse for that."""
    table = validate(sweep(noise=0.01, seed=2))
    table["epochs"] = np.where(np.arange(len(table)) < 3, 5.5, np.nan)
    (warning,) = [finding for finding in check(table).findings if "their text" in finding.message]
    assert f"3 of {len(table)} runs repeat their text more than 4 times (up to 5.5)" in str(warning)
    for fine in (table.drop(columns="epochs"), table.assign(epochs=4.0)):
        assert "their text" not in str(check(fine))


@pytest.mark.parametrize("delta", [1e-4, 1e-3, 5e-3])
def test_the_priors_weigh_the_same_at_any_delta(delta: float) -> None:
    """Most rows are in Huber's linear zone, where a sum taken as a log-likelihood let the priors decide."""
    grid = {"sizes": tuple(np.geomspace(1e7, 1e10, 8)), "tokens": tuple(np.geomspace(1e9, 1e12, 8))}
    law = SupervisedLaw(E=2.1, A=110.0, B=2.1e6, alpha=0.29, beta=0.7)
    frame = sweep(noise=0.01, students=(), **grid)
    N, D = frame["params"], frame["tokens"]
    frame["loss"] *= law.loss(N, D) / TRUTH.loss(N, D)
    settings = {"gamma": 1.0, "draws": 20, "held_out": False}
    held, free = (fit(frame, objective=Objective(delta=delta, priors=p), **settings) for p in (True, False))
    beta = free.primary_estimate.model.names.index("supervised ln gamma*beta")
    moved = (
        held.primary_estimate.theta - free.primary_estimate.theta
    ) / free.primary_estimate.standard_errors
    assert abs(moved[beta]) < 0.5
    assert held.supervised.beta == pytest.approx(law.beta, rel=0.2)
    squares = fit(frame, objective=Objective(delta=np.inf, priors=False), **settings)
    ratio = free.primary_estimate.standard_errors[beta] / squares.primary_estimate.standard_errors[beta]
    assert 0.9 < ratio < 1.4  # least absolute deviations need pi/2 times the rows
    assert "% of the residuals are beyond delta" in held.summary()
    assert "determined mainly" not in held.summary()


@pytest.mark.parametrize("delta", ["auto", 1e-3, 1e-5])
def test_priors_that_hold_a_coordinate_are_named_at_any_delta(delta: float | str) -> None:
    """Nine runs for five coefficients: a fit in the linear zone passes through five of them, and says so."""
    frame = sweep(noise=0.03, sizes=(1e6, 1e7, 1e8), tokens=(1e9, 4e9, 1.6e10), students=())
    found = fit(frame, objective=Objective(delta=delta), gamma=1.0, draws=20, held_out=False)
    assert found.primary_estimate.sigma[0] == pytest.approx(0.0213, rel=0.25)
    (said,) = [line for line in found.summary().splitlines() if "determined mainly by the priors" in line]
    assert re.search(r"supervised ln gamma\*alpha \([56]\d %\), supervised ln gamma\*beta \(9\d %\)", said)
