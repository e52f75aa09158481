"""The solver against brute force and against the optima computed independently under ``busbridge2025-b100``."""

from pathlib import Path

import numpy as np
import pytest

from scaling import Architecture, EffectiveTokensLaw, PublishedLaw9, SupervisedLaw
from scaling.planner.optimizer import Bounds, Problems, Setting, direct, optimize

SUPERVISED = SupervisedLaw(E=1.22, A=3355.0, B=18186.0, alpha=0.408, beta=0.431, gamma=0.452)
B100 = PublishedLaw9(
    c0=2.549, c1=522.6, d1=1.315, f1=0.090, A=2243.0, B=2418100.0, alpha=0.321, beta=0.637, gamma=0.764
)  # Table 6 of Busbridge et al. 2025 with B' multiplied by 100
PAPER_BOX = Bounds(student_tokens=(1e6, 1e17), teacher_params=(1e6, 1e17), teacher_tokens=(1e6, 1e17))


def setting(law=B100, bounds=PAPER_BOX, supervised=SUPERVISED, architecture=None):
    return Setting(supervised=supervised, law=law, architecture=architecture or Architecture(), bounds=bounds)


ROWS = np.loadtxt(Path(__file__).with_name("b100_optima.csv"), delimiter=",", skiprows=2)


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]:.0e}-{row[1]:.0e}" for row in ROWS])
def test_optima_found_independently(row):
    N, C, alone, best, best_teacher, inference, *rest = row
    o = optimize(setting(), Problems.of(N, C, [0, 1, 0, 1], [0, 0, 1, 1]))
    assert direct(setting(), N, C)[1] == pytest.approx(alone, abs=5.1e-4)
    losses = [best, inference, rest[2], rest[7]]
    np.testing.assert_allclose(o.loss, losses, atol=5.1e-4)
    np.testing.assert_allclose(o.teacher_loss, [best_teacher, rest[0], rest[3], rest[8]], atol=1.1e-3)
    np.testing.assert_allclose(o.teacher_params[1:], [rest[1], rest[4], rest[9]], rtol=0.03)
    np.testing.assert_allclose(o.teacher_tokens[2:], [rest[5], rest[10]], rtol=0.03)
    np.testing.assert_allclose(o.student_tokens[2:], [rest[6], rest[11]], rtol=0.03)
    assert o.teacher_tokens[1] == 1e17


def random_question(seed):
    """A law, a box and a problem at a random scale, from 10k-parameter models upwards."""
    rng = np.random.default_rng(seed)
    tiny = bool(rng.integers(2))
    architecture = Architecture(aspect_ratio=32, context=128, vocab=512) if tiny else Architecture()
    N, C = (
        (10 ** rng.uniform(4, 6), 10 ** rng.uniform(12, 15))
        if tiny
        else (10 ** rng.uniform(8, 11), 10 ** rng.uniform(20, 26))
    )
    supervised = SupervisedLaw(E=1.5, A=60.0, B=400.0, alpha=0.35, beta=0.40) if tiny else SUPERVISED
    law = [EffectiveTokensLaw(k=1.45596, q=9.1748, eps=0.0253), B100][0 if tiny else int(rng.integers(2))]
    caps = 10 ** rng.uniform(0.5, 3, 2)
    most = C / (3 * float(architecture.forward_flops(N)))
    bounds = Bounds(
        student_tokens=(1.0, most * (0.2 if rng.random() < 0.3 else 1.0)),
        teacher_params=rng.choice([(N / 30, N * caps[0]), (N * 5, N * 5 * caps[0]), (N * 2, N * 2)]),
        teacher_tokens=(most / 1e4, most * caps[1]),
        teacher_loss=(supervised.E * rng.choice([1.0, 1.3]), np.inf),
        teacher_unique_tokens=most * 0.3 if rng.random() < 0.3 else np.inf,
        student_unique_tokens=most * 0.3 if rng.random() < 0.3 else np.inf,
    )
    shares = [(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.2)][int(rng.integers(5))]
    return setting(law, bounds, supervised, architecture), Problems.of(N, C, *shares)


def brute_force(of, problem, points=700):
    """The least loss over every teacher on a grid of sizes and tokens, refined around the best twice."""
    from scaling.repeated_data import repeated_tokens_value

    N, C, logits, pretraining = (float(value[0, 0]) for value in problem)
    F, bounds = of.architecture.forward_flops, of.bounds
    (low_N, high_N), (low_D, high_D) = np.log(bounds.teacher_params), np.log(bounds.teacher_tokens)
    best = np.inf
    for _ in range(6):
        N_T = np.exp(np.linspace(low_N, high_N, points))[:, None]
        D_T = np.exp(np.linspace(low_D, high_D, points))[None, :]
        left = C - pretraining * 3 * F(N_T) * D_T
        tokens = left / (3 * F(N) + logits * F(N_T))
        ok = tokens >= bounds.student_tokens[0]
        tokens = np.where(ok, np.minimum(tokens, bounds.student_tokens[1]), 1.0)
        taught = repeated_tokens_value(D_T, bounds.teacher_unique_tokens)
        L_T = np.maximum(of.supervised.loss(N_T, taught), bounds.teacher_loss[0])
        seen = repeated_tokens_value(tokens, bounds.student_unique_tokens)
        loss = np.where(ok, of.law.loss(N, seen, L_T, of.supervised), np.inf)
        i, j = np.unravel_index(np.argmin(loss), loss.shape)
        best = min(best, loss[i, j])
        step_N, step_D = (high_N - low_N) / (points - 1), (high_D - low_D) / (points - 1)
        middle_N, middle_D = low_N + i * step_N, low_D + j * step_D
        low_N, high_N = max(low_N, middle_N - 8 * step_N), min(high_N, middle_N + 8 * step_N)
        low_D, high_D = max(low_D, middle_D - 8 * step_D), min(high_D, middle_D + 8 * step_D)
        points = 60
    return best


@pytest.mark.parametrize("seed", range(80))
def test_no_dense_grid_finds_better(seed):
    of, problem = random_question(seed)
    found = optimize(of, problem)
    assert found.loss[0] - brute_force(of, problem) <= 1e-6


def test_budget_and_costs_add_up():
    shares = ([0, 1, 0, 1, 0.3], [0, 0, 1, 1, 0.1])
    o = optimize(setting(), Problems.of(1e9, 1e22, *shares))
    F = Architecture().forward_flops
    spent = 3 * F(1e9) * o.student_tokens
    spent += F(o.teacher_params) * (
        np.array(shares[0]) * o.student_tokens + np.array(shares[1]) * 3 * o.teacher_tokens
    )
    np.testing.assert_allclose(spent, 1e22, rtol=1e-5)


def test_problems_solved_together_and_alone_agree():
    rng = np.random.default_rng(1)
    N, C = 10 ** rng.uniform(8, 11, 30), 10 ** rng.uniform(20, 25, 30)
    together = optimize(setting(), Problems.of(N, C, 1, 1))
    alone = [optimize(setting(), Problems.of(n, c, 1, 1)).loss[0] for n, c in zip(N, C, strict=True)]
    np.testing.assert_allclose(together.loss, alone, rtol=1e-9)


def test_nothing_feasible_is_infinite_not_wrong():
    bounds = Bounds(teacher_params=(1e12, 1e13), teacher_tokens=(1e12, 1e13), student_tokens=(1e6, 1e17))
    assert np.isinf(optimize(setting(bounds=bounds), Problems.of(1e9, 1e20, 0, 1)).loss[0])
