"""V-optimal picks: the published first picks of a replay, to the printed digits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sweeps
from fits.design.belief import Belief, believe
from fits.design.candidates import Candidates, candidates_of_table
from fits.design.points import Points
from fits.design.regret import DecisionOptions
from fits.design.v_optimal import greedy, updated
from fits.estimation.laws.parametrization import Prior
from fits.table.runs import validate

BUDGETS = (2e12, 4e12, 8e12, 1.6e13, 3.2e13)
PRIORS = {
    "supervised ln gamma": Prior(0.0, 0.7),
    "ln k": Prior(np.log(1.4), 1.0),
    "ln q": Prior(np.log(9.0), 0.5),
    "ln eps": Prior(np.log(0.025), 1.0),
}
FIRST_PICKS = [
    ("supervised", 13472, 524288, 0, 0),
    ("supervised", 21960, 524288, 0, 0),
    ("supervised", 13472, 1048576, 0, 0),
    ("supervised", 55728, 524288, 0, 0),
    ("distillation", 13472, 524288, 13472, 524288),
    ("supervised", 55728, 1048576, 0, 0),
    ("distillation", 13472, 524288, 55728, 1048576),
    ("supervised", 106944, 524288, 0, 0),
]


class Replay:
    """The 161 candidates and 20 measured decisions of the sweep permissive."""

    def __init__(self) -> None:
        self.table = sweeps.shipped("permissive")
        large = self.table["params"].isin([159280, 400400])
        taught = self.table["kind"] == "distillation"
        self.pool = self.table[~(large & taught)].reset_index(drop=True)
        self.options = pd.concat([self.table[large & taught], self.table[large & ~taught]], ignore_index=True)
        self.held_out = (self.options["kind"] == "distillation").to_numpy()
        self.candidates = candidates_of_table(self.pool, measured=True)
        self.targets = points_of(self.options)
        self.decisions = self.measured_decisions()

    def measured_decisions(self) -> DecisionOptions:
        of_run = self.table.drop_duplicates("run").set_index("run")["flops"]
        charged = self.options["teacher"].map(of_run).fillna(0.0).to_numpy(float)
        groups = [
            np.flatnonzero(
                (self.options["params"] == size) & (self.options["flops"] + paid * charged <= budget)
            )
            for size in (159280, 400400)
            for budget in BUDGETS
            for paid in (1, 0)
        ]
        names = tuple(map(str, range(len(groups))))
        return DecisionOptions(
            options=self.targets, groups=tuple(groups), names=names, labels=tuple(map(str, range(57)))
        )

    def belief(self, runs: list[int]) -> Belief:
        table = validate(self.pool.iloc[runs]) if runs else None
        return believe(table, points_of(self.table), priors=PRIORS, sigma=0.01, lowest_loss=2.4)

    def scores(self, belief: Belief) -> tuple[float, float, float]:
        """Root mean square error of the held-out runs, mean and largest regret of the decisions."""
        predicted, measured = belief.losses(self.targets), self.options["loss"].to_numpy(float)
        chosen = self.decisions.chosen(predicted)
        regret = [
            measured[pick] - measured[group].min()
            for pick, group in zip(chosen, self.decisions.groups, strict=True)
        ]
        error = (predicted - measured)[self.held_out]
        return float(np.sqrt(np.mean(error**2))), float(np.mean(regret)), float(np.max(regret))


def points_of(table: pd.DataFrame) -> Points:
    return Points.of(*(table[name].to_numpy(float) for name in ("params", "tokens", "teacher_loss")))


@pytest.fixture(scope="module")
def replay() -> Replay:
    return Replay()


def test_the_replay_is_the_published_one(replay: Replay) -> None:
    assert len(replay.candidates) == 161
    assert replay.pool["flops"].sum() == pytest.approx(3.0466e14, rel=2e-5)
    assert sorted({len(group) for group in replay.decisions.groups})[::12] == [2, 29]
    error, mean, worst = replay.scores(replay.belief(list(range(161))))
    assert (round(mean, 4), round(worst, 4)) == (0.0008, 0.0156)
    assert error == pytest.approx(0.0115, abs=5e-5)


def test_first_picks_gain_and_variance_are_the_published_ones(replay: Replay) -> None:
    runs: list[int] = []
    paid = np.zeros(len(replay.candidates.step_flops), dtype=bool)
    picked, spent = [], 0.0
    for count in range(8):
        belief = replay.belief(runs)
        pick = next(
            greedy(
                belief.covariance, belief.gradient(replay.targets),
                belief.gradient(replay.candidates.points), replay.candidates, belief.sigma, paid=paid,
            )
        )  # fmt: skip
        if count == 0:
            assert (round(pick.gain, 5), round(pick.variance, 5)) == (0.04651, 0.05483)
        runs += [pick.run, *pick.with_it]
        paid[replay.candidates.steps_of(pick.run)] = True
        spent += pick.flops
        row = replay.pool.iloc[pick.run]
        teacher = [
            0 if np.isnan(row[name]) else int(row[name]) for name in ("teacher_params", "teacher_tokens")
        ]
        picked.append((row["kind"], int(row["params"]), int(row["tokens"]), *teacher))
        if count == 5:
            error, mean, worst = replay.scores(replay.belief(runs))
            assert 100 * spent / 3.0466e14 == pytest.approx(0.488, abs=5e-4)
            assert (round(error, 4), round(mean, 4), round(worst, 4)) == (0.0328, 0.0010, 0.0194)
    assert picked == FIRST_PICKS


def test_gradients_are_those_of_finite_differences(replay: Replay) -> None:
    points = Points.of(
        [1e4, 5e4, 1e5], [1e6, 1e6, 2e6], [np.nan, 2.9, np.nan], [np.nan, np.nan, 4e5], [np.nan, np.nan, 4e6]
    )
    belief = replay.belief([0, 40, 90, 130, 150])
    found = belief.gradient(points)
    for i in range(len(belief.theta)):
        step = 1e-5 * np.eye(len(belief.theta))[i]
        up, down = belief.losses(points, np.stack([belief.theta + step, belief.theta - step]))
        assert found[:, i] == pytest.approx(np.log(up / down) / 2e-5, rel=1e-5, abs=1e-8)


def test_an_update_is_the_inverse_of_the_information(replay: Replay) -> None:
    belief = replay.belief([])
    gradient = belief.gradient(replay.candidates.points)[:5]
    covariance = belief.covariance
    for row in gradient:
        covariance = updated(covariance, row, 1e-4)
    information = np.linalg.inv(belief.covariance) + gradient.T @ gradient / 1e-4
    assert covariance == pytest.approx(np.linalg.inv(information), rel=1e-6, abs=1e-9)


def test_a_teacher_is_paid_for_once_and_counts_as_measured(replay: Replay) -> None:
    candidates: Candidates = replay.candidates
    teacher = int(np.flatnonzero(candidates.teacher >= 0)[0])
    own = float(replay.pool["flops"].iloc[teacher])
    paid = np.zeros(161, dtype=bool)
    of_teacher = float(replay.pool["flops"].iloc[candidates.teacher[teacher]])
    assert candidates.cost(paid)[teacher] == pytest.approx(own + of_teacher)
    paid[candidates.steps_of(teacher)] = True
    shared = candidates.teacher == candidates.teacher[teacher]
    assert candidates.cost(paid)[shared][1:] == pytest.approx(replay.pool["flops"].to_numpy()[shared][1:])
    assert candidates.done(paid)[candidates.teacher[teacher]]


def test_picks_stay_within_the_spend_and_repeat_no_configuration(replay: Replay) -> None:
    belief = replay.belief([])
    picks = list(
        greedy(
            belief.covariance, belief.gradient(replay.targets), belief.gradient(replay.candidates.points),
            replay.candidates, 0.01, paid=np.zeros(161, dtype=bool), spend=3e12,
        )
    )  # fmt: skip
    assert 5 < len(picks) < 40
    assert sum(pick.flops for pick in picks) <= 3e12
    configurations = replay.candidates.configuration[[pick.run for pick in picks]]
    assert len(set(configurations[:-1])) == len(configurations) - 1  # the last can be no other
