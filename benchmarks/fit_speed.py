"""Speed of fits and bootstraps, in CPU seconds of one core, and distance from the optimum.

OMP_NUM_THREADS=1 python benchmarks/fit_speed.py
"""

from __future__ import annotations

import resource
import time
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.optimize import minimize as scipy_minimize

from fits import Objective, datasets, fit
from fits.estimation.bootstrap import bootstrap, resampled_problem
from fits.estimation.estimate import Estimate, fit_model
from fits.estimation.levenberg_marquardt import Array, BatchProblem, minimize, objective, quadratic
from fits.estimation.model import Model, Rows
from fits.published import busbridge2025
from scaling import EffectiveTokensLaw, PublishedLaw, SupervisedLaw

HUBER = Objective(delta=1e-3, priors=False)
GIVEN = busbridge2025.supervised_from_table6().supervised


def seconds(action: object, repeats: int = 1) -> tuple[float, object]:
    """CPU seconds of one call, and what it returned."""
    assert callable(action)
    began = time.process_time()
    for _ in range(repeats):
        result = action()
    return (time.process_time() - began) / repeats, result


def chinchilla() -> None:
    """The 5-parameter fit of the 240 rows, and its bootstrap."""
    rows = Rows.of(datasets.chinchilla().sort_values("loss").iloc[:240])
    model = Model(rows, None, fixed={"supervised ln gamma": 0.0})
    took, found = seconds(lambda: fit_model(model, HUBER), 50)
    assert isinstance(found, Estimate)
    value = float(found.objective * found.sigma[0] ** 2)
    agree = f"{found.agreed} of {found.starts} agree"
    print(f"240 rows, 5 parameters: {took:.4f} s, {value:.7e}, {agree}")
    took, _ = seconds(lambda: bootstrap(found, 4000))
    print(f"4000 Huber bootstraps: {took:.2f} s; {_missed(found, 4000, 400)}")


def distillation() -> None:
    """The 8-parameter fit of the 354 rows, its bootstrap, and synthetic data sets with outliers."""
    rows = Rows.of(datasets.figure1())
    model = Model(rows, "published", given=GIVEN)
    for name, how in (("Huber 1e-3", HUBER), ("default", Objective())):
        took, found = seconds(lambda how=how: fit_model(model, how))
        assert isinstance(found, Estimate)
        print(f"354 rows, 8 parameters, {name}: {took:.3f} s, {found.agreed} of {found.starts} agree")
        took, _ = seconds(lambda found=found: bootstrap(found, 1000))
        print(f"  1000 bootstraps: {took:.2f} s; {_missed(found, 1000, 1000)}")
    for name, how in (("Huber 1e-3", HUBER), ("default", Objective())):
        worse, times = [], []
        for seed in range(24):
            other = Model(_synthetic(rows, seed), "published", given=GIVEN)
            took, found = seconds(lambda other=other, how=how: fit_model(other, how))
            assert isinstance(found, Estimate)
            times.append(took)
            worse.append(found.objective / _best_of_many(other, found) - 1)
        print(
            f"24 synthetic data sets (0.3 % noise, 4 % outliers), {name}: {np.mean(times):.3f} s each, at "
            f"most {max(times):.3f}; largest excess over the best of 200 polished starts {max(worse):+.1e}"
        )


def scale() -> None:
    """100,000 rows: checkpoints of 2,000 supervised runs and 1,000 distillations."""
    rng = np.random.default_rng(0)
    N, D = np.exp(rng.uniform(np.log(1e7), np.log(1e10), 2000)), np.geomspace(1e9, 1e11, 45)
    frame = pd.DataFrame(
        {
            "run": np.repeat([f"s{i}" for i in range(2000)], 45),
            "params": np.repeat(N, 45),
            "tokens": np.tile(D, 2000),
        }
    )
    noise = np.repeat(0.003 * rng.standard_normal(2000), 45) + 0.001 * rng.standard_normal(90_000)
    law = SupervisedLaw(E=1.7, A=480.0, B=2085.0, alpha=0.35, beta=0.37)
    frame["loss"] = law.loss(frame["params"], frame["tokens"]) * np.exp(noise)
    N, L_T = np.exp(rng.uniform(np.log(1e7), np.log(1e9), 1000)), rng.uniform(1.95, 3.0, 1000)
    students = pd.DataFrame(
        {"run": np.repeat([f"d{i}" for i in range(1000)], 10), "params": np.repeat(N, 10)}
        | {"tokens": np.tile(np.geomspace(1e9, 1e10, 10), 1000), "teacher_loss": np.repeat(L_T, 10)}
    )
    truth = EffectiveTokensLaw(k=1.4, q=9.0, eps=0.025)
    loss = truth.loss(students["params"], students["tokens"], students["teacher_loss"], law)
    students["loss"] = loss * np.exp(0.003 * rng.standard_normal(10_000))
    table = pd.concat([frame, students], ignore_index=True)
    took, found = seconds(lambda: fit(table))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"100,000 rows, fit with 400 draws and held-out checks: {took:.1f} s, {memory:.2f} GiB at most")
    print(found.supervised, *found.distillation.values())  # type: ignore[attr-defined]


def _missed(found: Estimate, draws: int, sample: int) -> str:
    """Return the share of sampled bootstraps that further minimization lowers by more than 1e-3."""
    ended = bootstrap(found, draws)
    batch = resampled_problem(found, draws, method="runs", seed=0, model=found.model)
    excess = []
    for i in np.linspace(0, draws - 1, sample).astype(int):
        one = slice(i, i + 1)
        problem = replace(
            batch, observed=batch.observed[one], weight=batch.weight[one], center=batch.center[one]
        )
        here = float(objective(problem, ended.theta[one])[0])
        excess.append(here / _polished(problem, ended.theta[i]) - 1)
    return f"{np.sum(np.array(excess) > 1e-3)} of {sample} inspected more than 1e-3 above their own optimum"


def _polished(problem: BatchProblem, theta: Array) -> float:
    """The objective after a long BFGS from several points around ``theta``."""

    def value_and_slope(theta: Array) -> tuple[float, Array]:
        with np.errstate(all="ignore"):  # BFGS knows no bounds
            value, slope, _ = quadratic(problem, theta[None], np.zeros(1, dtype=np.intp))
        return float(value[0]), slope[0]

    rng = np.random.default_rng(0)
    values = []
    for jump in (0.0, 0.02, 0.1):
        point = np.clip(theta + jump * rng.standard_normal(len(theta)), problem.lower, problem.upper)
        values.append(
            scipy_minimize(value_and_slope, point, jac=True, method="BFGS", options={"gtol": 1e-8}).fun
        )
    return float(min(values))


def _best_of_many(model: Model, found: Estimate, starts: int = 200, polished: int = 5) -> float:
    """The best objective of many random starts, the best few of them polished by BFGS."""
    rng = np.random.default_rng(99)
    center, spread = model.prior()
    problem = found.problem
    ended = minimize(
        problem, center + 1.5 * spread * rng.standard_normal((starts, model.size)), iterations=600
    )
    order = np.argsort(ended.objective)[:polished]
    return min(_polished(problem, ended.theta[i]) for i in order)


def _synthetic(rows: Rows, seed: int) -> Rows:
    """The 354 rows with losses of a known published law, noise and outliers."""
    rng = np.random.default_rng(seed)
    law = PublishedLaw(c0=2.4, k=0.92, f1=0.1, A=2300.0, B=97000.0, alpha=0.33, beta=0.49, gamma=0.74)
    noise = 0.003 * rng.standard_normal(len(rows)) * np.where(rng.random(len(rows)) < 0.04, 10.0, 1.0)
    return replace(rows, L=law.loss(rows.N, rows.D, rows.L_T, GIVEN) * np.exp(noise))


if __name__ == "__main__":
    chinchilla()
    distillation()
    scale()
