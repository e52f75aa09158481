"""Speed of the planner relative to a naive grid search: ``python benchmarks/plan_speed.py``.

The baseline is SciPy's SLSQP in (ln D_S, ln N_T, ln D_T) with the budget as an equality constraint, numerical
gradients and 64 random starts, as the paper describes its own solver. Times are the best of several repeats.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from scaling import Architecture, Calibration, PublishedLaw9, Question, Scenario, SupervisedLaw, plan
from scaling.costs.scenarios import BOTH, SCENARIOS
from scaling.planner.optimizer import QUICK, Bounds, Problems, Setting, optimize

SUPERVISED = SupervisedLaw(E=1.22, A=3355.0, B=18186.0, alpha=0.408, beta=0.431, gamma=0.452)
B100 = PublishedLaw9(
    c0=2.549, c1=522.6, d1=1.315, f1=0.090, A=2243.0, B=2418100.0, alpha=0.321, beta=0.637, gamma=0.764
)
BOX = (1e6, 1e17)
SETTING = Setting(
    supervised=SUPERVISED,
    law=B100,
    architecture=Architecture(),
    bounds=Bounds(student_tokens=BOX, teacher_params=BOX, teacher_tokens=BOX),
)
N, C = 1e9, 1e22
STARTS = 64


def naive(scenario: Scenario, starts: int = STARTS, seed: int = 0) -> float:
    """The best loss of SLSQP from random starts."""
    F = SETTING.architecture.forward_flops
    F_S = float(F(N))

    def loss(x: np.ndarray) -> float:
        D_S, N_T, D_T = np.exp(x)
        return float(B100.loss(N, D_S, SUPERVISED.loss(N_T, D_T), SUPERVISED))

    def spent(x: np.ndarray) -> float:
        D_S, N_T, D_T = np.exp(x)
        F_T = float(F(N_T))
        cost = 3 * F_S * D_S + F_T * (scenario.logits * D_S + scenario.pretraining * 3 * D_T)
        return float(np.log(cost / C))

    rng = np.random.default_rng(seed)
    box = [tuple(np.log(BOX))] * 3
    best = np.inf
    for _ in range(starts):
        start = [rng.uniform(*np.log((1e8, 1e14))) for _ in range(3)]
        found = minimize(
            loss,
            start,
            method="SLSQP",
            bounds=box,
            constraints={"type": "eq", "fun": spent},
            tol=1e-12,
            options={"maxiter": 300},
        )
        if found.success and abs(spent(found.x)) < 1e-6:
            best = min(best, found.fun)
    return best


def seconds(run: Callable[[], object], repeats: int) -> float:
    """The best of several repeats."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def processes(*commands: list[str]) -> list[float]:
    """Wall seconds of each command, the best of ten taken in turns so that they share the machine's moods."""
    times: list[list[float]] = [[] for _ in commands]
    for _ in range(10):
        for command, taken in zip(commands, times, strict=True):
            taken.append(seconds(lambda c=command: subprocess.run(c, check=True, capture_output=True), 1))
    return [min(taken) for taken in times]


def main() -> None:
    """Print the table."""
    calibration = Calibration.load("busbridge2025-figure1-runs")
    pointed = Calibration(
        name="points",
        supervised=SUPERVISED,
        distillation={"published-9": B100},
        provenance=calibration.provenance,
    )
    one, four = (BOTH,), tuple(SCENARIOS.values())
    problem = Problems.of(N, C, BOTH.logits, BOTH.pretraining)

    found = optimize(SETTING, problem).loss[0]
    began = time.perf_counter()
    reference = naive(BOTH)
    baseline = time.perf_counter() - began
    point = seconds(lambda: optimize(SETTING, problem), 50)
    print(f"point, one scenario, solver          {1e3 * point:8.2f} ms  loss {found:.9f}")
    print(f"  SLSQP, {STARTS} starts, same question    {1e3 * baseline:8.0f} ms  loss {reference:.9f}")
    print(f"  ratio {baseline / point:.0f}, gap {found - reference:+.1e} nats")
    for name, scenarios in (("one scenario", one), ("four scenarios", four)):
        question = Question(student_params=N, budget=C, scenarios=scenarios)
        print(
            f"plan, {name}, no draws".ljust(37)
            + f"{1e3 * seconds(lambda q=question: plan(q, pointed), 30):8.2f} ms"
        )
        took = seconds(lambda q=question: plan(q, calibration), 5)
        print(f"plan, {name}, 1000 draws".ljust(37) + f"{1e3 * took:8.1f} ms")

    sizes, budgets = np.meshgrid(np.geomspace(1e8, 1e11, 100), np.geomspace(1e20, 1e26, 100))
    for scenario in four:
        grid = Problems.of(sizes, budgets, scenario.logits, scenario.pretraining)
        took = seconds(lambda g=grid: optimize(SETTING, g), 2)
        print(f"100 x 100 map, {scenario.name}".ljust(55) + f"{took:6.2f} s")
    grids = [Problems.of(sizes, budgets, each.logits, each.pretraining) for each in four]
    took = seconds(lambda: [optimize(SETTING, grid, QUICK) for grid in grids], 2)
    gap = max(abs(optimize(SETTING, grid, QUICK).loss - optimize(SETTING, grid).loss).max() for grid in grids)
    print(f"100 x 100 map, all four, quick (within {gap:.0e} nats)".ljust(55) + f"{took:6.2f} s")

    imports, command = processes(
        [sys.executable, "-c", "import numpy, scipy.optimize"],
        ["distlaw", "plan", "--student", "300M", "--budget", "1e21"],
    )
    print(
        f"distlaw plan, whole process {command:.3f} s; import numpy, scipy.optimize {imports:.3f} s; "
        f"ratio {command / imports:.2f}"
    )


if __name__ == "__main__":
    main()
