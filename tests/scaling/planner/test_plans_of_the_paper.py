"""Results of the paper on teachers and costs, in plans with the calibration that reproduces them."""

import pytest
from samples_of_calibrations import BOX, ask, best

from scaling import (
    KnownTeacher,
)
from scaling.costs.scenarios import BEST_CASE, BOTH


def test_table_3_where_the_compute_goes():
    def shares(N, C):
        return best(ask(student_params=N, budget=C, constraints=BOX), BOTH.name).shares

    for N in (3e8, 1e9):
        assert max(shares(N, 1e20)) == shares(N, 1e20)[2]
    for N in (3e8, 1e9, 3e9):
        assert shares(N, 1e25)[2] < 0.1
    assert shares(1e10, 1e20)[0] > 0.5
    assert shares(1e10, 1e21)[0] > 0.5
    for N in (1e10, 3e10):
        assert max(shares(N, 1e25)) - min(shares(N, 1e25)) < 0.3


def test_the_pretraining_teacher_is_compute_optimal_for_itself():
    for N, C in [(3e8, 1e21), (3e9, 1e23), (1e10, 1e25)]:
        way = best(ask(student_params=N, budget=C, constraints=BOX), "teacher_pretraining")
        alone = ask(budget=way.teacher_flops).direct[0]
        assert way.teacher_params == pytest.approx(alone.params, rel=0.02)
        assert 13 < way.teacher_tokens / way.teacher_params < 16


def test_paying_for_logits_overtrains_the_teacher_and_a_budget_lowers_its_loss():
    losses = []
    for C in (1e20, 1e22, 1e24):
        way = best(ask(student_params=3e9, budget=C, constraints=BOX), "teacher_inference")
        assert way.teacher_tokens == 1e17
        losses.append(way.teacher_loss)
    assert losses == sorted(losses, reverse=True)


def test_pretraining_a_teacher_for_one_student_does_not_pay():
    for N, C in [(3e8, 1e20), (1e9, 1e22), (3e9, 1e24), (1e10, 1e26)]:
        assert best(ask(student_params=N, budget=C, constraints=BOX), BOTH.name).gain.value < 0.0025
    for N in (1e9, 3e9):
        assert best(ask(student_params=N, budget=1e20, constraints=BOX), BEST_CASE.name).gain.value > 0.05


def test_the_capacity_gap_among_real_teachers():
    sizes = (198e6, 266e6, 546e6, 975e6, 1.82e9, 2.72e9, 4.82e9, 7.75e9, 9.17e9, 12.6e9)
    teachers = tuple(KnownTeacher(name=f"{N:g}", params=N, tokens=20 * N) for N in sizes)
    for ratio, best_size, loss in [(20, 2.72e9, 2.771), (80, 2.72e9, 2.641), (320, 1.82e9, 2.559)]:
        tokens = ratio * 143e6
        limits = {"student_tokens": (tokens, tokens)}
        answer = ask(student_params=143e6, budget=1e23, teachers=teachers, constraints=limits)
        assert answer.distillations[0].teacher_params == best_size
        assert answer.distillations[0].loss.value == pytest.approx(loss, abs=2e-3)
