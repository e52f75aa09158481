"""Replays of proposed runs on runs that exist, and the stopping rule on sweeps drawn from public laws.

    python benchmarks/next_runs_replay.py permissive figure1 stopping quickstart

``permissive``: 161 candidates of the shipped sweep, 20 decisions about students of 159k and 400k between runs
that were measured; FLOPs, in per cent of the pool's, from which the mean regret stays within .005 nat of the
full pool's. Constants' priors are those of Figure 1's runs, since public ones contain this sweep. A teacher's
loss is predicted until it is trained. A seed decides which of equal runs comes first.

``figure1``: 284 distillations as candidates, 70 larger ones held out, the supervised law given, teachers
priced at the cheapest size and tokens of their loss; FLOPs from which the error is within 1.5 times the full
pool's.

``quickstart``: its 43 runs, from the second time on with .6 % of noise on every loss; whether the decisions
at the stop are those of all runs.

``stopping``: losses of the same 161 candidates drawn from laws as public sweeps have them; true regret where
the rule stops.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import sweeps
from fits import datasets
from fits.design.belief import Belief, believe
from fits.design.candidates import Candidates, candidates_of_steps, candidates_of_table
from fits.design.next_runs import next_runs
from fits.design.points import Points
from fits.design.question_options import TeacherOption, decisions_of
from fits.design.regret import DecisionOptions
from fits.design.v_optimal import greedy
from fits.estimation.laws.parametrization import Prior
from fits.table.runs import validate
from scaling import Calibration, EffectiveTokensLaw, Question, SupervisedLaw
from scaling.laws import AnySupervisedLaw

Array = NDArray[np.float64]
QUICKSTART = Path(__file__).parents[1] / "notebooks" / "data" / "quickstart-runs.csv"
SEEDS, PICKS = 20, 14
BUDGETS = (2e12, 4e12, 8e12, 1.6e13, 3.2e13)
OTHERS = {
    "ln k": Prior(np.log(1.45), 0.35),
    "ln q": Prior(np.log(9.33), 0.35),
    "ln eps": Prior(np.log(0.024), 0.8),
}
"""Priors of the constants from sweeps other than permissive."""
TINY = {
    "ln k": Prior(np.log(0.95), 0.35),
    "ln q": Prior(np.log(8.5), 0.35),
    "ln eps": Prior(np.log(0.0093), 0.9),
}
"""Geometric means of three sweeps of 7e3 to 4e5 parameters: sweeps other than Figure 1's."""
PUBLIC = {
    "a": (-0.835, 0.595),
    "b": (-0.865, 0.554),
    "sN": (np.log(0.299), 0.30),
    "sD": (np.log(0.308), 0.323),
}
"""Mean and sd over ten public families: terms at the center relative to E, slopes at the center."""


@dataclass
class Pool:
    """Candidates whose losses are known, and decisions between options whose losses are."""

    table: pd.DataFrame
    candidates: Candidates
    decisions: DecisionOptions
    measured: Array
    """Losses of the options, nats/token."""

    def regret(self, belief: Belief) -> float:
        """Mean regret of deciding by an estimate."""
        chosen = self.decisions.chosen(belief.losses(self.decisions.options))
        lost = [
            self.measured[pick] - self.measured[group].min()
            for pick, group in zip(chosen, self.decisions.groups, strict=True)
        ]
        return float(np.mean(lost))


def points_of(table: pd.DataFrame, *, predicted: bool) -> Points:
    """Return runs as points; teachers' losses measured, or to be predicted."""
    names = ("params", "tokens", "teacher_loss", "teacher_params", "teacher_tokens")
    N, D, L_T, N_T, D_T = (table[name].to_numpy(np.float64) for name in names)
    return Points.of(N, D, np.nan, N_T, D_T) if predicted else Points.of(N, D, L_T)


def permissive(seed: int) -> Pool:
    """Return the pool of the shipped sweep in an order of its own."""
    table = sweeps.shipped("permissive")
    large, taught = table["params"].isin([159280, 400400]), table["kind"] == "distillation"
    pool = table[~(large & taught)].sample(frac=1.0, random_state=seed).reset_index(drop=True)
    options = table[large].reset_index(drop=True)
    flops = table.drop_duplicates("run").set_index("run")["flops"]
    charged = options["teacher"].map(flops).fillna(0.0).to_numpy(np.float64)
    groups = tuple(
        np.flatnonzero((options["params"] == size) & (options["flops"] + paid * charged <= budget))
        for size in (159280, 400400)
        for budget in BUDGETS
        for paid in (1, 0)
    )
    decisions = DecisionOptions(
        options=points_of(options, predicted=True),
        groups=groups,
        names=tuple(f"decision {i}" for i in range(len(groups))),
        labels=tuple(options["run"]),
    )
    return Pool(pool, candidates_of_table(pool), decisions, options["loss"].to_numpy(np.float64))


def replay(pool: Pool, slots: int, priors: dict[str, Prior]) -> tuple[list[float], list[float], float]:
    """Return FLOPs and mean regret after every round, and the full pool's regret."""
    every, table = Points.joined([pool.candidates.points, pool.decisions.options]), validate(pool.table)
    full = pool.regret(believe(table, every, priors=priors))
    spent, regrets, known, total = [], [], list[int](), 0.0
    paid = np.zeros(len(pool.candidates.step_flops), dtype=bool)
    belief = believe(None, every, priors=priors)
    while len(known) < PICKS:
        losses = {i: float(table["loss"].iloc[i]) for i in known}
        candidates = pool.candidates.with_teachers_measured(losses)
        picks = greedy(
            belief.covariance, belief.gradient(pool.decisions.options), belief.gradient(candidates.points),
            candidates, belief.sigma, paid=paid,
        )  # fmt: skip
        for pick in islice(picks, slots):
            known += [pick.run, *pick.with_it]
            paid[candidates.steps_of(pick.run)] = True
            total += pick.flops
        belief = believe(table.iloc[known], every, priors=priors)
        spent.append(total)
        regrets.append(pool.regret(belief))
    return spent, regrets, full


def from_when(spent: Sequence[float], values: Sequence[float], bound: float) -> float:
    """Return the FLOPs from which all values are below a bound; inf if the last is not."""
    bad = [i for i, value in enumerate(values) if value > bound]
    last = bad[-1] + 1 if bad else 0
    return spent[last] if last < len(spent) else np.inf


def report_permissive() -> None:
    """Print the cost of a good decision over seeds, one run after the other and four at once."""
    for slots in (1, 4):
        costs, runs = [], []
        for seed in range(SEEDS):
            pool = permissive(seed)
            spent, regrets, full = replay(pool, slots, OTHERS)
            cost = from_when(spent, regrets, full + 0.005)
            costs.append(100 * cost / pool.table["flops"].sum())
            runs.append(sum(each <= cost for each in spent) * slots)
        print(
            f"permissive, {slots} at once: mean regret within .005 nat of the full pool's ({full:.4f}) from "
            f"{np.median(costs):.2f} % of its FLOPs (median of {SEEDS} seeds; worst {max(costs):.2f} %), "
            f"{np.median(runs):.0f} runs"
        )


def figure1() -> tuple[pd.DataFrame, pd.DataFrame, Candidates, AnySupervisedLaw]:
    """Return the pool, the runs held out, the candidates, and the supervised law of the authors."""
    calibration = Calibration.load("busbridge2025-figure1-runs")
    law, table = calibration.supervised, validate(datasets.figure1())
    table = table[table["excluded"] == ""].reset_index(drop=True)
    large = (table["params"] >= 1.82e9) | ((table["params"] > 5.4e8) & (table["tokens"] > 9e10))
    pool, held = table[~large].reset_index(drop=True), table[large].reset_index(drop=True)
    teachers = np.unique(pool["teacher_loss"])
    prices = [cheapest(law, float(loss)) for loss in teachers]
    rows = [
        {"id": str(i), "params": row.params, "tokens": row.tokens, "teacher": f"teacher {row.teacher_loss}",
         "teacher_loss": row.teacher_loss}
        for i, row in enumerate(pool.itertuples())
    ]  # fmt: skip
    own = (6 * pool["params"] * pool["tokens"]).tolist()
    needs = [
        [i, len(pool) + int(np.searchsorted(teachers, row["teacher_loss"]))] for i, row in enumerate(rows)
    ]
    return pool, held, candidates_of_steps(rows, [*own, *prices], needs), law


def cheapest(law: AnySupervisedLaw, loss: float) -> float:
    """Return the FLOPs (6 N D) of the cheapest model of a loss."""
    N, D = np.meshgrid(np.geomspace(1e7, 1e12, 600), np.geomspace(1e8, 1e14, 1200))
    enough = law.loss(N, D) <= loss
    return float(np.min(np.where(enough, 6 * N * D, np.inf)))


def report_figure1() -> None:
    """Print the error on the runs held out by FLOPs, beside that of all candidates."""
    pool, held, candidates, law = figure1()
    targets = points_of(held.assign(teacher_params=np.nan, teacher_tokens=np.nan), predicted=False)
    every, total = Points.joined([candidates.points, targets]), candidates.step_flops.sum()

    def error(rows: list[int]) -> float:
        belief = believe(pool.iloc[rows], every, priors=TINY, given=law)
        return float(np.sqrt(np.mean((belief.losses(targets) - held["loss"].to_numpy()) ** 2)))

    full = error(list(range(len(pool))))
    known, spent, errors, cost = list[int](), [], [], 0.0
    paid = np.zeros(len(candidates.step_flops), dtype=bool)
    for _ in range(20):
        belief = believe(pool.iloc[known] if known else None, every, priors=TINY, given=law)
        pick = next(
            greedy(belief.covariance, belief.gradient(targets), belief.gradient(candidates.points),
                   candidates, belief.sigma, paid=paid)
        )  # fmt: skip
        known.append(pick.run)
        paid[candidates.steps_of(pick.run)] = True
        cost += pick.flops
        spent.append(100 * cost / total)
        errors.append(error(known))
    print(
        f"figure 1: {len(pool)} candidates, {total:.2g} FLOPs, {len(held)} runs held out, rms {full:.4f} nat "
        f"of the full pool; after 1 run ({spent[0]:.3f} %) {errors[0]:.4f}, after 8 ({spent[7]:.2f} %) "
        f"{errors[7]:.4f}; within 1.5 x from {from_when(spent, errors, 1.5 * full):.3f} %"
    )


def simulated(seed: int) -> Pool:
    """Return the pool of permissive with losses of laws as public sweeps have them, noise .8 %."""
    rng = np.random.default_rng(seed)
    pool = permissive(seed)
    a, b, sN, sD = (mean + sd * rng.standard_normal() for mean, sd in PUBLIC.values())
    gamma = min(float(np.exp(np.log(0.538) + 0.378 * rng.standard_normal())), 1.2)
    E = float(np.exp(np.log(1.5) + 0.15 * rng.standard_normal()))
    N0, D0 = (float(np.exp(np.mean(np.log(pool.table[name])))) for name in ("params", "tokens"))
    alpha, beta = np.exp(sN) / gamma, np.exp(sD) / gamma
    A, B = (np.exp((x + np.log(E)) / gamma) for x in (a, b))
    law = SupervisedLaw(E=E, A=A * N0**alpha, B=B * D0**beta, alpha=alpha, beta=beta, gamma=gamma)
    k, q, eps = np.exp(np.log([1.1, 8.5, 0.012]) + np.array([0.35, 0.35, 0.9]) * rng.standard_normal(3))
    distilled = EffectiveTokensLaw(k=k, q=q, eps=eps)

    def truth(table: pd.DataFrame) -> Array:
        names = ("params", "tokens", "teacher_params", "teacher_tokens")
        N, D, N_T, D_T = (table[name].to_numpy(np.float64) for name in names)
        taught = np.isfinite(N_T)
        L_T = law.loss(np.where(taught, N_T, 1e6), np.where(taught, D_T, 1e7))
        return np.where(taught, distilled.loss(N, D, L_T, law), law.loss(N, D))

    losses = truth(pool.table) * np.exp(0.008 * rng.standard_normal(len(pool.table)))
    table = pool.table.assign(loss=losses)
    by_run = dict(zip(table["run"], losses, strict=True))
    table["teacher_loss"] = table["teacher"].map(by_run)
    options = pool.decisions.options
    as_table = pd.DataFrame(
        {
            "params": options.N,
            "tokens": options.D,
            "teacher_params": options.N_T,
            "teacher_tokens": options.D_T,
        }
    )
    return replace(pool, table=table.drop(columns=["vocab", "bits_per_byte"]), measured=truth(as_table))


def report_stopping(count: int = 100) -> None:
    """Print the true regret where the rule stops, and what it took."""
    true, claimed, runs = [], [], []
    for seed in range(count):
        pool = simulated(seed)
        every = Points.joined([pool.candidates.points, pool.decisions.options])
        index = {run: i for i, run in enumerate(pool.candidates.ids)}
        known, table = list[int](), validate(pool.table)
        while True:
            found = next_runs(table.iloc[known] if known else None, pool.candidates, pool.decisions, slots=2)
            if found.stop or not found.runs:
                break
            for run in found.runs:
                known += [index[run.id], *(index[each] for each in run.with_it)]
        true.append(pool.regret(believe(table.iloc[known], every)))
        claimed.append(found.regret)
        runs.append(len(known))
    print(
        f"stopping: of {count} simulated sweeps {sum(each > 0.01 for each in true)} stop above a true "
        f"regret of .01 (mean {np.mean(true):.4f}, claimed {np.mean(claimed):.4f}, worst {max(true):.4f}), "
        f"after {np.median(runs):.0f} runs (median; {min(runs)} to {max(runs)})"
    )


def report_quickstart() -> None:
    """Print what the 43 runs of the quickstart cost until decisions are made."""
    shipped = pd.read_csv(QUICKSTART).drop(columns=["excluded", "bits_per_byte"])
    architecture = Calibration.load("distlaw2026-permissive").architecture
    questions = [
        Question(student_params=size, budget=budget) for size in (56e3, 16e4) for budget in (3e12, 3e13)
    ]
    teachers = shipped[shipped["run"].isin(shipped["teacher"])]
    options = [TeacherOption(params=row.params, tokens=row.tokens) for row in teachers.itertuples()]
    decisions = decisions_of(questions, architecture, options)
    for seed in range(5):
        noise = np.exp(0.006 * (seed > 0) * np.random.default_rng(seed).standard_normal(len(shipped)))
        table = shipped.assign(loss=shipped["loss"] * noise)
        table["teacher_loss"] = table["teacher"].map(dict(zip(table["run"], table["loss"], strict=True)))
        table, candidates = validate(table), candidates_of_table(table)
        every = Points.joined([candidates.points, decisions.options])
        losses = believe(table, every).losses(decisions.options)
        index, known, spent = {run: i for i, run in enumerate(candidates.ids)}, list[int](), 0.0
        while not (
            found := next_runs(table.iloc[known] if known else None, candidates, decisions, slots=3)
        ).stop:
            for run in found.runs:
                known += [index[run.id], *(index[each] for each in run.with_it)]
            spent += found.flops
        chosen = decisions.chosen(believe(table.iloc[known], every).losses(decisions.options))
        best = decisions.chosen(losses)
        print(
            f"quickstart, noise {seed}: stops after {len(known)} of {len(table)} runs, "
            f"{spent / table['flops'].sum():.0%} of their FLOPs; {np.mean(chosen == best):.0%} of "
            f"{len(best)} decisions are those of all runs, by whose law they lose "
            f"{np.mean(losses[chosen] - losses[best]):.4f}"
        )


REPORTS = {
    "quickstart": report_quickstart,
    "permissive": report_permissive,
    "figure1": report_figure1,
    "stopping": report_stopping,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or REPORTS:
        REPORTS[name]()
