"""The planner's answers: identities between question types."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from samples_of_calibrations import B100, BOX, SUPERVISED, F, ask, best, tiny

from scaling import (
    InputError,
    KnownTeacher,
    Scenario,
)
from scaling.costs.scenarios import BEST_CASE, BOTH, INFERENCE, PRETRAINING
from scaling.repeated_data import repeated_tokens_value


def test_every_way_spends_the_budget_and_competes_with_direct_training_of_equal_compute():
    answer = ask(student_params=1e9, budget=1e22)
    assert [way.name for way in answer.distillations] == [
        "best_case",
        "teacher_inference",
        "teacher_pretraining",
        "teacher_pretraining_and_inference",
    ]
    for way in answer.distillations:
        assert way.flops == pytest.approx(1e22, rel=1e-4)
        assert way.direct.flops == pytest.approx(1e22, rel=1e-9)
        assert way.gain.value == pytest.approx(way.direct.loss.value - way.loss.value)
        assert sum(way.shares) == pytest.approx(1)


def test_amortised_costs_lie_between_the_extremes():
    quarter = Scenario("quarter", 1.0, 0.25)
    answer = ask(student_params=1e9, budget=1e21, scenarios=(INFERENCE, quarter, BOTH), constraints=BOX)
    losses = [way.loss.value for way in answer.distillations]
    assert losses == sorted(losses)


def test_a_known_teacher_equal_to_the_optimal_one_gives_the_optimal_plan():
    free = best(ask(student_params=3e8, budget=1e21, scenarios=(INFERENCE,)), "teacher_inference")
    known = KnownTeacher(name="same", params=free.teacher_params, loss=free.teacher_loss)
    answer = ask(student_params=3e8, budget=1e21, teachers=(known,))
    assert answer.distillations[0].loss.value == pytest.approx(free.loss.value, abs=1e-9)
    assert answer.distillations[0].tokens == pytest.approx(free.tokens, rel=1e-4)


def test_known_teachers_are_ranked_and_the_unusable_left_out():
    teachers = (
        KnownTeacher(name="weak", params=1e9, loss=2.6),
        KnownTeacher(name="good", params=2e9, tokens=2e11),
        KnownTeacher(name="foreign", params=2e9, loss=2.0, vocab=151936),
    )
    answer = ask(student_params=3e8, budget=1e21, teachers=teachers)
    assert [way.name for way in answer.distillations] == ["good", "weak"]
    assert any("foreign (151936)" in warning for warning in answer.warnings)
    with pytest.raises(InputError, match="no teacher can be used"):
        ask(student_params=3e8, budget=1e21, teachers=teachers[2:])


def test_the_best_teacher_for_given_tokens():
    teachers = tuple(KnownTeacher(name=f"{L}", params=2e9, loss=L) for L in (1.9, 2.1, 2.3, 2.6))
    answer = ask(
        student_params=3e8, budget=1e21, teachers=teachers, constraints={"student_tokens": (2e10, 2e10)}
    )
    losses = [B100.loss(3e8, 2e10, float(way.name), SUPERVISED) for way in answer.distillations]
    assert losses == sorted(losses)
    assert all(way.tokens == pytest.approx(2e10) for way in answer.distillations)


def test_a_served_teacher_costs_dollars_not_compute():
    served = KnownTeacher(name="served", params=7e9, loss=2.0, dollars_per_million_tokens=0.1)
    way = ask(student_params=3e8, budget=1e21, teachers=(served,)).distillations[0]
    assert way.logits_flops == 0
    assert way.dollars == pytest.approx(way.tokens * 1e-7)


def test_bought_logits_are_weighed_against_training_where_a_dollar_has_its_flops():
    served = KnownTeacher(name="served", params=7e9, loss=2.0, dollars_per_million_tokens=0.2)
    question = {"student_params": 1e9, "budget": 1e21, "teachers": (served,)}
    silent = ask(**question)
    assert "Not in this comparison: up to $" in silent.headline
    answer = ask(**question, flops_per_dollar=5.7e17)
    way = answer.distillations[0]
    assert way.logits_flops == pytest.approx(way.dollars * 5.7e17)
    assert way.flops == pytest.approx(1e21, rel=1e-6)
    assert way.own_flops == pytest.approx(way.student_flops)
    assert way.gain.value < 0 < silent.distillations[0].gain.value
    assert "Not in this comparison" not in answer.headline


def test_a_family_for_which_no_teacher_is_cheap_enough_trains_directly():
    limits = {"teacher_params": (1e11, 1e12), "teacher_tokens": (1e12, 1e13)}
    answer = ask(family=(1e8, 3e8), budget=1e20, scenarios=(PRETRAINING,), constraints=limits)
    assert not answer.distillations
    assert any("nothing within the constraints" in warning for warning in answer.warnings)


def test_a_target_is_reached_with_the_least_budget():
    answer = ask(student_params=1e9, target_loss=2.2)
    for way in answer.distillations:
        assert way.loss.value == pytest.approx(2.2, abs=1e-6)
        again = ask(student_params=1e9, budget=way.flops, scenarios=(BEST_CASE,))
        if way.name == "best_case":
            assert best(again, "best_case").loss.value == pytest.approx(2.2, abs=1e-5)
    tokens = answer.direct[0].tokens
    assert SUPERVISED.loss(1e9, tokens) == pytest.approx(2.2, abs=1e-7)


def test_a_target_out_of_reach_says_why():
    floor = SUPERVISED.loss(3e8, 1e30)
    with pytest.raises(
        InputError, match=rf"2 nats/token cannot be reached.* {floor:.3f} \(direct training\)"
    ):
        ask(student_params=3e8, target_loss=2.0)


def test_the_free_size_of_direct_training_is_compute_optimal():
    """Optima computed independently under the printed supervised law."""
    for C, N, D, L in [(1e20, 9.32e8, 1.45e10, 2.419), (1e22, 9.92e9, 1.55e11, 1.986)]:
        direct = ask(budget=C).direct[0]
        assert direct.params == pytest.approx(N, rel=0.01)
        assert direct.tokens == pytest.approx(D, rel=0.01)
        assert direct.loss.value == pytest.approx(L, abs=6e-4)


def test_the_cheapest_model_for_a_target_is_the_compute_optimal_one():
    direct = ask(target_loss=2.2, scenarios=(BEST_CASE,)).direct[0]
    assert direct.params == pytest.approx(2.67e9, rel=0.02)
    assert direct.tokens == pytest.approx(4.23e10, rel=0.02)


def test_serving_makes_the_best_student_smaller():
    sizes = [ask(budget=1e22, lifetime_tokens=served).direct[0].params for served in (0.0, 1e11, 1e12)]
    assert sizes == sorted(sizes, reverse=True)
    answer = ask(budget=1e22, lifetime_tokens=1e12)
    for way in answer.distillations:
        assert way.flops == pytest.approx(1e22, rel=1e-4)
        assert way.serving_flops == pytest.approx(float(F(way.params)) * 1e12)


def test_a_serving_limit_binds():
    answer = ask(budget=1e22, constraints={"student_params": (None, 1e9)})
    assert all(way.params == pytest.approx(1e9, rel=1e-3) for way in answer.distillations)


def test_a_family_of_one_is_a_student():
    limits = {name: bound for name, bound in BOX.items() if name != "student_tokens"}
    alone = ask(student_params=1e9, budget=1e22, constraints=limits)
    family = ask(family=(1e9,), budget=1e22, constraints=limits)
    for one, other in zip(family.distillations, alone.distillations, strict=True):
        assert one.loss.value == pytest.approx(other.loss.value, abs=2e-6)
    free, single = best(family, "1B student: teacher and logits free"), best(alone, "best_case")
    assert free.teacher_params == pytest.approx(single.teacher_params, rel=0.01)
    assert free.teacher_tokens == pytest.approx(single.teacher_tokens, rel=0.01)


@pytest.mark.parametrize("unique", [math.inf, 2e10, 1e9])
def test_a_family_spends_its_budget_where_it_returns_most(unique):
    answer = ask(family=(3e8, 1e9), budget=3e21, scenarios=(PRETRAINING,), student_unique_tokens=unique)
    small, large = answer.distillations
    assert small.teacher_params == large.teacher_params
    assert small.flops + large.flops == pytest.approx(3e21, rel=1e-6)
    left = small.student_flops + large.student_flops

    def total(share):
        losses = []
        for N, part in ((3e8, share), (1e9, 1 - share)):
            seen = repeated_tokens_value(left * part / (3 * float(F(N))), unique)
            losses.append(B100.loss(N, seen, small.teacher_loss, SUPERVISED))
        return float(sum(losses))

    found = total(small.student_flops / left)
    assert found - min(map(total, np.linspace(0.01, 0.99, 3001))) <= 1e-6


def test_scarce_data_costs_loss_and_four_epochs_cost_little():
    plenty = ask(student_params=3e8, budget=1e21).direct[0]
    four = ask(student_params=3e8, budget=1e21, student_unique_tokens=plenty.tokens / 4).direct[0]
    hundred = ask(student_params=3e8, budget=1e21, student_unique_tokens=plenty.tokens / 100).direct[0]
    assert plenty.loss.value < four.loss.value < plenty.loss.value + 0.005
    assert hundred.loss.value > four.loss.value + 0.02


def test_near_optimal_points_are_near_optimal():
    answer = ask(student_params=1e9, budget=1e21, tolerance=0.003, scenarios=(BOTH,), constraints=BOX)
    way = answer.distillations[0]
    low, high = way.near.ranges["teacher_params"]
    assert low < way.teacher_params < high
    assert way.near.cheapest_flops < 1e21
    edge = ask(
        student_params=1e9, budget=1e21, scenarios=(BOTH,), constraints=BOX | {"teacher_params": (high, high)}
    )
    assert edge.distillations[0].loss.value - way.loss.value <= 0.003
    beyond = BOX | {"teacher_params": (high * 1.2, high * 1.2)}
    past = ask(student_params=1e9, budget=1e21, scenarios=(BOTH,), constraints=beyond)
    assert past.distillations[0].loss.value - way.loss.value > 0.003
    assert all(rung["loss"] - way.loss.value <= 0.003 for rung in way.near.ladder)
    assert way.near.ladder


def test_constraints_hold():
    limits = {"teacher_params": (None, 5e8), "teacher_tokens": (1e10, 1e10), "student_tokens": (None, 1e10)}
    answer = ask(student_params=1e9, budget=1e22, constraints=limits)
    for way in answer.distillations:
        assert way.teacher_params <= 5e8 * (1 + 1e-9)
        assert way.teacher_tokens == pytest.approx(1e10)
        assert way.tokens <= 1e10 * (1 + 1e-9)
    worse = ask(student_params=1e9, budget=1e22, constraints={"teacher_loss": (2.3, 2.3)})
    assert all(way.teacher_loss == pytest.approx(2.3, rel=1e-6) for way in worse.distillations)


def test_a_teacher_too_large_is_trained_little_whatever_the_budget():
    """The cost of its training is then small beside its logits; a better one would only widen the capacity gap."""
    limits = {"teacher_params": (1.3e10, 1.3e12), "teacher_tokens": (1.0, 1e17)}
    losses = []
    for C in (1e24, 1e25, 1e26, 1e27):
        answer = ask(student_params=1.6e8, budget=C, constraints=limits, scenarios=(BOTH, INFERENCE))
        losses.append([way.loss.value for way in answer.distillations])
        assert all(way.teacher_params == pytest.approx(1.3e10, rel=1e-3) for way in answer.distillations)
        assert all(1e10 < way.teacher_tokens < 2e10 for way in answer.distillations)
    assert np.all(np.diff(losses, axis=0) < 0)


def test_results_convert():
    answer = ask(tiny(), student_params=1e5, budget=1e14)
    plain = answer.to_dict()
    for content in (plain, *plain["distillations"]):
        for added in ("headline", "verdict", "flops"):
            content.pop(added, None)
    assert plain == json.loads(json.dumps(asdict(answer), allow_nan=False))
    assert len(answer.to_frame()) == 5
    assert "<table>" in answer._repr_html_()
