"""Projected losses in tables, fits, beliefs and designs: weights by their variance, exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fits import fit
from fits.design.belief import Belief, believe
from fits.design.candidates import candidates_of_steps
from fits.design.next_runs import next_runs
from fits.design.points import Points
from fits.design.question_options import decisions_of
from fits.design.v_optimal import greedy
from fits.estimation.estimate import Objective, fit_model
from fits.estimation.model import Model, Rows
from fits.table.projection import DRIFT_SD, projected_loss, projection_sd, without_projected
from fits.table.runs import read_runs, validate
from scaling import Architecture, InputError, Question, SupervisedLaw

LAW = SupervisedLaw(E=1.5, A=30.0, B=6000.0, alpha=0.31, beta=0.66, gamma=0.8)
SIGMA = 0.01
N, D = (each.ravel() for each in np.meshgrid(np.geomspace(1e4, 3e5, 5), np.geomspace(5e5, 2e7, 5)))
CENTER = Points.of(N, D)


def table_of(loss: Any, **columns: Any) -> pd.DataFrame:
    runs = pd.DataFrame({"params": N, "tokens": D, "loss": loss} | columns)
    runs["run"] = [f"r{i}" for i in range(len(runs))]
    return validate(runs)


def belief_of(table: pd.DataFrame) -> Belief:
    return believe(table, CENTER, sigma=SIGMA, lowest_loss=1.0)


def test_a_projection_follows_the_drop_of_the_early_decay() -> None:
    assert projected_loss(3.0, 3.3, 3.2) == pytest.approx(3.0 * np.exp(np.log(3.2 / 3.3)))
    assert projection_sd(np.e, 1.0) == pytest.approx(DRIFT_SD)
    assert projection_sd([4.0, 16.0], 1.0)[1] == pytest.approx(np.sqrt(2) * projection_sd(4.0, 1.0))


def test_two_projected_rows_of_twice_the_variance_weigh_as_one_measured_at_their_mean() -> None:
    """Least squares with known noise: an exact identity, for the estimate and its covariance."""
    rng = np.random.default_rng(0)
    loss = LAW.loss(N, D) * np.exp(SIGMA * rng.standard_normal(len(N)))
    apart = np.exp(0.02 * rng.standard_normal(len(N)))
    twice = pd.concat([table_of(loss * apart), table_of(loss / apart)], ignore_index=True)
    twice["run"], twice["projected_sd"] = [f"r{i}" for i in range(len(twice))], SIGMA
    one, two = belief_of(table_of(loss)), belief_of(validate(twice))
    assert two.theta == pytest.approx(one.theta, abs=1e-5)
    assert two.covariance == pytest.approx(one.covariance, rel=1e-3, abs=1e-9)
    # a projection that is known to nothing is as good as none
    table = table_of(loss).assign(projected_sd=np.where(np.arange(len(N)) < 10, 1e3, np.nan))
    vague = belief_of(table)
    assert vague.theta == pytest.approx(belief_of(table_of(loss).iloc[10:]).theta, abs=1e-5)


def test_the_variance_enters_the_gain_exactly() -> None:
    belief = believe(None, CENTER)
    flops = [1.0] * len(N)
    rows = [{"id": f"r{i}", "params": N[i], "tokens": D[i], "seed": 0} for i in range(len(N))]
    measured = candidates_of_steps(rows, flops, [[i] for i in range(len(N))])
    projected = replace(measured, extra_sd=np.full(len(N), 0.02))
    points, at = belief.gradient(CENTER), belief.gradient(measured.points)
    for candidates, variance in ((measured, SIGMA**2), (projected, SIGMA**2 + 0.02**2)):
        pick = next(
            greedy(belief.covariance, points, at, candidates, SIGMA, paid=np.zeros(len(N), dtype=bool))
        )
        seen = belief.covariance @ at[pick.run]
        spread = at[pick.run] @ seen
        assert pick.gain == pytest.approx(np.mean((points @ seen) ** 2) / (variance + spread), rel=1e-12)
        after = belief.covariance - np.outer(seen, seen) / (variance + spread)
        assert pick.covariance == pytest.approx(after, rel=1e-9, abs=1e-15)


def test_fits_weigh_projected_rows_by_their_variance_or_leave_them_out() -> None:
    rng = np.random.default_rng(1)
    far = D > 3e6
    sd = np.where(far, 0.1, np.nan)
    loss = LAW.loss(N, D) * np.exp(0.004 * rng.standard_normal(len(N)))
    loss = loss * np.exp(np.where(far, 0.1, 0.0) * rng.standard_normal(len(N)))
    marked = table_of(loss, projected_sd=sd)
    model = Model(Rows.of(marked), None)
    found = fit_model(model, Objective(), starts=4)
    measured, projected = (found.sigma[far == flag] for flag in (False, True))
    assert measured == pytest.approx(np.full(len(measured), measured[0]))
    assert projected == pytest.approx(np.hypot(measured[0], 0.1), rel=1e-9)
    options: dict[str, Any] = {"draws": 20, "starts": 4, "held_out": False, "gamma": 1.0}
    weighed, alone = fit(marked, **options), fit(marked, measured_only=True, **options)
    assert any(f"{far.sum()} losses are projected" in note for note in weighed.notes)
    assert (alone.table.loc[far, "excluded"].str.startswith("projected")).all()
    assert len(alone.primary_estimate.model.rows) == len(N) - far.sum()
    with pytest.raises(InputError, match="no loss of the table is projected"):
        fit(table_of(loss), measured_only=True, **options)


def test_the_law_is_recovered_better_with_the_variances_than_without() -> None:
    """Eight sweeps, in which half of the long runs are projected with a noise of .05 of ln loss."""
    far, at = D > 1e6, Points.of([1e6], [1e8])
    truth = float(LAW.loss(1e6, 1e8)[()])
    errors = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        noise = np.hypot(0.004, np.where(far & (np.arange(len(N)) % 2 == 0), 0.05, 0.0))
        loss = LAW.loss(N, D) * np.exp(noise * rng.standard_normal(len(N)))
        sd = np.where(noise > 0.01, 0.05, np.nan)
        tables = table_of(loss, projected_sd=sd), table_of(loss)
        errors.append([np.log(belief_of(each).losses(at)[0] / truth) for each in tables])
    weighed, unweighed = np.sqrt(np.mean(np.square(errors), axis=0))
    assert weighed < 0.7 * unweighed


def test_no_projected_loss_of_a_measured_run_is_proposed() -> None:
    """A fit leaves it out, so it tells nothing: of two seeds only the one that was not measured is left."""
    rows = [
        {"id": f"{seed}{sd:g}", "params": 1e5, "tokens": 2e6, "seed": seed, "projected_sd": sd or np.nan}
        for seed in (0, 1)
        for sd in (0.0, 0.01)
    ]
    candidates = candidates_of_steps(rows, [1.0] * 4, [[i] for i in range(4)])
    decisions = decisions_of([Question(student_params=4e5, budget=1e14)], Architecture())
    measured = validate(pd.DataFrame({"run": ["00"], "params": 1e5, "tokens": 2e6, "loss": 3.0, "seed": 0}))
    found = next_runs(measured, candidates, decisions, regret=-1.0, slots=4)
    assert next(run.id for run in found.runs) in ("10", "10.01")
    assert "00.01" not in {run.id for run in found.runs}
    both = validate(pd.concat([measured, measured.assign(run="10", seed=1)], ignore_index=True))
    assert next_runs(both, candidates, decisions, regret=-1.0).runs == ()


def test_a_projected_row_gives_way_to_the_measured_one_of_the_same_run() -> None:
    pair = pd.DataFrame({"params": 1e5, "tokens": [1e6, 2e6, 2e6], "loss": [3.2, 3.0, 3.01], "seed": 0})
    pair["projected_sd"] = [np.nan, np.nan, 0.004]
    table = validate(pair)
    assert table["excluded"].tolist() == ["", "", "projected, and the same run was measured"]
    other_seed = validate(pair.assign(seed=[0, 1, 0]))
    assert (other_seed["excluded"] == "").all()
    assert without_projected(table)["excluded"].tolist() == table["excluded"].tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-0.01", "leave it empty for measured"),
        ("0", "leave it empty for measured"),
        ("0.48", "0.48 is too much for the standard deviation of ln loss, at most 0.2"),
    ],
)
def test_a_projected_sd_is_positive_and_small_or_empty(text: str, message: str) -> None:
    import io

    content = f"params,tokens,loss,projected_sd\n1e6,1e8,3.1,\n1e6,4e8,2.9,{text}\n".encode()
    with pytest.raises(InputError, match=rf"row 2, column 'projected_sd': .*{message}"):
        read_runs(io.BytesIO(content))
