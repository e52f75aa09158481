import numpy as np
import pytest
from samples_of_calibrations import BOX, calibration, tiny

from scaling import Calibration, InputError, Question, frontier, plan
from scaling.costs.scenarios import BEST_CASE, INFERENCE, PRETRAINING


def test_crossovers_lie_where_the_digest_finds_them():
    """Section 4.4 there, under the same set: 1.6e21 and 1.0e23; best case 1.7e22."""
    budgets = np.geomspace(1e20, 1e26, 61)
    question = {"budget": 1e26, "constraints": BOX, "scenarios": (BEST_CASE, INFERENCE)}
    one = frontier(Question(student_params=1e9, **question), budgets, calibration())
    ten = frontier(Question(student_params=1e10, **question), budgets, calibration())
    assert one.tracks["teacher_inference"].crossover.at.value == pytest.approx(1.6e21, rel=0.1)
    assert one.tracks["best_case"].crossover.at.value == pytest.approx(1.7e22, rel=0.1)
    assert ten.tracks["teacher_inference"].crossover.at.value == pytest.approx(1.0e23, rel=0.1)


def test_a_point_of_the_frontier_is_the_plan():
    along = frontier(Question(student_params=1e5, budget=1e15), [1e14, 1e15], tiny())
    answer = plan(Question(student_params=1e5, budget=1e14), tiny())
    for way in answer.distillations:
        for one, other in (
            (along.tracks[way.name].loss[0], way.loss),
            (along.tracks[way.name].gain[0], way.gain),
        ):
            assert (one.value, one.low, one.high) == pytest.approx(
                (other.value, other.low, other.high), abs=1e-6
            )
    assert len(along.to_frame()) == 2 * 5
    assert "FLOPs" in along._repr_html_()


def test_bands_of_a_crossover_cover_its_value():
    question = Question(student_params=3e4, budget=1e16, scenarios=(BEST_CASE,))
    track = frontier(question, np.geomspace(1e11, 1e17, 49), tiny()).tracks["best_case"]
    assert 0 <= track.crossover.share <= 1
    if track.crossover.at is not None:
        assert track.crossover.at.low <= track.crossover.at.value <= track.crossover.at.high


def test_a_range_needs_two_ends():
    with pytest.raises(InputError, match="two positive budgets"):
        frontier(Question(student_params=1e9, budget=1e21), [1e21], calibration())
    with pytest.raises(InputError, match="neither a family"):
        frontier(Question(family=(1e8, 1e9), budget=1e21), [1e20, 1e21], calibration())


def test_a_free_size_grows_with_the_budget():
    along = frontier(Question(budget=1e22, scenarios=(INFERENCE,)), [1e20, 1e21, 1e22], calibration())
    assert list(along.direct_params) == sorted(along.direct_params)
    assert along.direct_params[0] == pytest.approx(9.32e8, rel=0.01)  # compute-optimal, section 4.2
    answer = plan(Question(budget=1e22, scenarios=(INFERENCE,)), calibration())
    track = along.tracks["teacher_inference"]
    assert track.student_params[-1] == pytest.approx(answer.distillations[0].params, rel=1e-3)
    assert track.loss[-1].value == pytest.approx(answer.distillations[0].loss.value, abs=1e-7)


def test_distilling_that_gets_ahead_later_is_given_its_budget_too():
    question = Question(student_params=1e9, budget=3e22, scenarios=(PRETRAINING,), law="published")
    along = frontier(question, np.geomspace(1e22, 3e22, 25))
    track = along.tracks["teacher_pretraining"]
    gains = np.array([gain.value for gain in track.gain])
    assert gains[0] < 0 < gains[-1]
    assert track.crossover.at is None
    before, after = (along.budgets[np.flatnonzero(sign)[k]] for sign, k in ((gains < 0, -1), (gains > 0, 0)))
    assert before <= track.overtaking.at.value <= after
    assert track.overtaking.at.low <= track.overtaking.at.value <= track.overtaking.at.high
    assert "distilling gets ahead at" in along.headline


def test_losses_that_are_not_credible_have_their_own_range():
    """With a free size and many tokens to serve, only the smallest budgets extrapolate absurdly."""
    along = frontier(
        Question(budget=1e22, lifetime_tokens=1e12, law="published"), np.geomspace(1e20, 1e22, 25)
    )
    floor = {name: [] for name in along.tracks}
    law = Calibration.load(along.calibration).supervised
    for name, track in along.tracks.items():
        floor[name] = [
            cost
            for cost, loss, N in zip(along.budgets, track.loss, track.student_params, strict=True)
            if loss.value < law.loss(N, 1e30)
        ]
        said = [low <= cost <= high for cost in along.budgets for low, high in track.incredible]
        assert sum(said) == len(floor[name])
    assert any(floor.values())


def test_a_frontier_tells_how_far_its_teachers_lie_outside_and_keeps_warnings():
    question = Question(student_params=1e9, budget=1e22, scenarios=(INFERENCE,), extrapolate=True)
    along = frontier(question, [1e21, 1e22])
    assert min(along.outside) >= 10 - 1e-6  # the teacher's tokens
    warned = frontier(Question(student_params=1e9, budget=1e22), [1e21, 1e22], "busbridge2025-table6")
    assert any("misprinted" in warning for warning in warned.warnings)


def test_a_frontier_and_a_plan_agree_on_the_probability():
    budgets = [1e20, 1e21]
    found = frontier(Question(student_params=3e8, budget=1e21), budgets)
    single = plan(Question(student_params=3e8, budget=1e21))
    assert [track.probability[1] for track in found.tracks.values()] == pytest.approx(
        [way.probability for way in single.distillations], abs=1e-6
    )


def test_a_calibration_without_a_distillation_law_has_a_frontier():
    budgets = [1e20, 1e21, 1e22]
    along = frontier(Question(budget=1e22), budgets, "hoffmann2022")
    assert along.tracks == {}
    assert along.law is None
    assert along.headline.startswith("Direct training only: the calibration has no distillation law.")
    single = plan(Question(budget=1e21), "hoffmann2022").direct[0]
    assert along.direct[1].value == pytest.approx(single.loss.value)
    assert along.direct_params[1] == pytest.approx(single.params, rel=1e-3)
    assert len(along.to_frame()) == 3
    assert "direct training" in along._repr_html_()
    assert along.plot() is not None
    with pytest.raises(InputError, match="supervised law only"):
        frontier(Question(budget=1e22, law="published"), budgets, "hoffmann2022")


def test_budgets_that_pay_for_nothing_are_left_out_with_a_word():
    question = Question(student_params=3e8, budget=1e21)
    budgets = [1e8, 1e9, 1e12, 1e13, 1e14]
    along = frontier(question, budgets)
    assert along.budgets == (1e12, 1e13, 1e14)
    assert any("1e8 to 1e9 FLOPs" in warning for warning in along.warnings)
    served = frontier(
        Question(student_params=3e8, budget=1e21, lifetime_tokens=1e12), [1e20, 1e21, 1e22, 1e23]
    )
    assert served.budgets == (1e21, 1e22, 1e23)
    with pytest.raises(InputError, match=r"fewer than two of the budgets from .* FLOPs pay for this student"):
        frontier(question, [1e7, 1e8])


def test_a_scenario_that_no_budget_pays_for_is_left_out_with_a_word():
    bounds = {"teacher_params": (1e12, 1e12), "teacher_tokens": (1e12, 1e12)}
    along = frontier(Question(student_params=3e8, budget=1e21, constraints=bounds), [1e20, 1e21])
    assert set(along.tracks) == {"best_case", "teacher_inference"}
    assert any(warning.startswith("teacher trained, logits free: nothing") for warning in along.warnings)
