"""Uncertainty of plans, and questions without an answer."""

import math
from dataclasses import replace

import numpy as np
import pytest
from samples_of_calibrations import ask, best, tiny

from scaling import (
    Calibration,
    InputError,
    KnownTeacher,
    Question,
    plan,
    predict,
)
from scaling.costs.scenarios import BEST_CASE, BOTH, INFERENCE


def test_a_small_sweep_gives_intervals_a_verdict_and_a_warning_about_extrapolation():
    answer = ask(tiny(), student_params=1e5, budget=1e14)
    for way in answer.distillations:
        assert 0 <= way.probability <= 1
        assert way.loss.low < way.loss.value < way.loss.high
        assert way.teacher_tokens <= 1.0001 * max(4e7, answer.direct[0].tokens)
        assert {"student_tokens", "teacher_params", "teacher_tokens", "teacher_loss", "loss"} <= set(
            way.ranges
        )
    assert answer.headline.split()[0] in ("Distil", "Train", "Too")
    assert "Extrapolated up to" in answer.headline
    assert any("tokens" in warning for warning in answer.warnings)


def test_free_sizes_and_budgets_have_a_spread_too():
    sized = ask(tiny(), budget=1e13, scenarios=(BOTH,)).distillations[0]
    low, high = sized.ranges["student_params"]
    assert low < sized.params < high
    aimed = ask(tiny(), student_params=1e5, target_loss=3.2, scenarios=(INFERENCE,), extrapolate=True)
    (aimed,) = aimed.distillations
    low, high = aimed.ranges["flops"]
    assert low < aimed.flops < high


def test_uncertainty_turns_verdicts_into_close_calls():
    sure = ask(tiny(), student_params=1e5, budget=1e14, scenarios=(BOTH,)).distillations[0]
    assert sure.verdict == ("distil" if sure.probability >= 0.9 else sure.verdict)
    noisy = Calibration(
        **{
            name: getattr(tiny(), name)
            for name in ("name", "supervised", "distillation", "draws", "provenance")
        },
        region=tiny().region,
        architecture=tiny().architecture,
        residual_sd={"supervised": 5.0, "effective-tokens": 5.0},
    )
    assert ask(noisy, student_params=1e5, budget=1e14, scenarios=(BOTH,)).headline.startswith(
        "Too close to call"
    )


def test_probabilities_match_the_draws():
    of = tiny(draws=400)
    answer = ask(of, student_params=5e4, budget=1e13, scenarios=(INFERENCE,)).distillations[0]
    supervised, law = of.sampled_supervised(), of.sampled_law()
    gain = supervised.loss(5e4, answer.direct.tokens) - law.loss(
        5e4, answer.tokens, answer.teacher_loss, supervised
    )
    noise = math.hypot(0.02, 0.02) * np.random.default_rng(1).standard_normal((400, 500))
    assert answer.probability == pytest.approx(float((gain + noise > 0).mean()), abs=0.01)


def test_a_teacher_weaker_than_the_student_is_never_answered_silently():
    weak = KnownTeacher(name="weak", params=1e8, loss=2.9)
    answer = ask(student_params=1e9, budget=1e21, teachers=(weak,))
    assert any("weaker than the student" in warning for warning in answer.warnings)


def test_a_loss_below_the_floor_is_not_a_verdict():
    answer = plan(Question(student_params=3e8, budget=1e26, law="published"))
    assert {way.verdict for way in answer.distillations} == {"no answer, the loss is not credible"}
    assert {way.probability for way in answer.distillations} == {None}
    assert "P(" not in answer.headline
    assert any("artifact" in warning for warning in answer.warnings)


def test_far_outside_the_fitted_runs_there_is_no_verdict():
    for size in ("1e3", "1e15"):
        answer = plan(Question(student_params=size, budget=1e21))
        assert answer.headline.startswith("No answer")
        assert "P(" not in answer.headline


def test_no_way_is_the_cheapest_if_none_can_be_believed():
    answer = plan(Question(student_params=1e9, target_loss=2.06, law="published"))
    assert answer.distillations
    assert "No cheapest way" in answer.headline


def test_a_predicted_teacher_must_lie_within_the_supervised_runs():
    """The default calibration knows its teachers by their losses; those of plans come from its other law."""
    far = predict(student_params=1e9, student_tokens=2e10, teacher_params=1e12, teacher_tokens=1e14)
    assert far.outside["teacher_params"] == pytest.approx(1e12 / 1.26e10)
    assert any("teacher tokens 200x" in warning for warning in far.warnings)
    measured = predict(student_params=1e9, student_tokens=2e10, teacher_loss=2.0, teacher_params=1e12)
    assert "teacher_params" not in measured.outside
    exists = best(plan(Question(student_params=1e9, budget=1e21, extrapolate=True)), "teacher_inference")
    assert exists.outside["teacher_tokens"] == pytest.approx(10)


def test_an_interval_spans_the_laws_that_hold():
    shipped = Calibration.load("busbridge2025-figure1-runs")
    both = replace(shipped, law_weights={}, default="published")
    one = best(plan(Question(student_params=1e9, budget=1e21), both), "teacher_inference")
    assert one.loss.low < min(one.by_law.values()) <= max(one.by_law.values()) < one.loss.high
    sharp = Question(student_params=1e9, budget=1e21, law="effective-tokens-sharp")  # the narrower one
    alone = best(plan(sharp), "teacher_inference")
    assert alone.loss.high - alone.loss.low < one.loss.high - one.loss.low
    large = best(plan(Question(student_params=5e9, budget=1e22), both), "teacher_inference")
    asked = best(plan(Question(student_params=5e9, budget=1e22, law="published")), "teacher_inference")
    assert large.loss == asked.loss  # the other law does not hold there


@pytest.mark.parametrize(
    ("unique", "words"), [(4e10, None), (2e10, "worth clearly less"), (1e9, "worth nothing")]
)
def test_many_epochs_are_warned_about(unique, words):
    answer = plan(Question(student_params=1e9, budget=1e21, student_unique_tokens=unique))
    said = [warning for warning in answer.warnings if "epochs of the student's" in warning]
    assert any(words in warning for warning in said) if words else not said
    assert ("data repeat" in answer.headline) == (unique == 1e9)


def test_two_laws_show_their_disagreement_and_which_one_left_its_region():
    published = Calibration.load("busbridge2025-figure1-runs")
    answer = plan(Question(student_params=1e9, budget=1e21), published)
    for way in answer.distillations:
        assert set(way.by_law) == {"published", "effective-tokens-sharp"}
    large = plan(Question(student_params=1e10, budget=1e24), published)
    beyond = [each for each in large.warnings if "outside the region of the effective-tokens-sharp" in each]
    assert "six known runs of larger students end 0.004 to 0.012 nats lower" in beyond[0]


def test_a_supervised_calibration_plans_direct_training_only():
    answer = plan(Question(student_params=1e9, budget=1e21), Calibration.load("besiroglu2024"))
    assert not answer.distillations
    assert "no distillation law" in answer.headline
    assert answer.direct[0].flops == pytest.approx(1e21)
    with pytest.raises(InputError, match="supervised law only"):
        plan(Question(student_params=1e9, budget=1e21, law="published"), Calibration.load("besiroglu2024"))


def test_a_prediction_is_what_the_laws_say():
    answer = predict(tiny(), student_params=5e4, student_tokens=1e6, teacher_params=2e5, teacher_tokens=4e6)
    teacher = float(tiny().supervised.loss(2e5, 4e6))
    expected = tiny().law().loss(5e4, 1e6, teacher, tiny().supervised)
    assert answer.losses["effective-tokens"].value == pytest.approx(expected)
    assert answer.losses["teacher"].value == pytest.approx(teacher)
    assert list(answer.to_frame()["what"]) == ["supervised", "teacher", "effective-tokens"]
    assert "<table>" in answer._repr_html_()
    assert "coefficient" in tiny()._repr_html_()


@pytest.mark.parametrize("student", [3e7, 3e8, 3e9])
def test_a_teacher_that_exists_stays_within_the_runs_unless_asked(student):
    """A teacher whose training is free is best if trained longest."""
    free = (BEST_CASE, INFERENCE)
    for calibrated in (None, "distlaw2026-permissive"):
        of = calibrated or "busbridge2025-figure1-runs"
        scale = 1e-4 if calibrated else 1.0
        question = Question(student_params=student * scale, budget=1e21 * scale**2, scenarios=free)
        region = Calibration.load(of).region.teachers()
        for way in plan(question, of).distillations:
            assert way.outside.get("teacher_params", 1.0) == pytest.approx(1)
            assert way.outside.get("teacher_tokens", 1.0) == pytest.approx(1)
            assert region["teacher_tokens"][0] <= way.teacher_tokens <= region["teacher_tokens"][1] * 1.0001
        farther = best(plan(replace(question, extrapolate=True), of), "teacher_inference")
        assert farther.outside["teacher_tokens"] > 9.99
        bound = {"teacher_tokens": (None, 2 * region["teacher_tokens"][1])}
        asked = best(plan(replace(question, constraints=bound), of), "teacher_inference")
        assert asked.outside["teacher_tokens"] == pytest.approx(2)


def test_the_default_answer_is_no_extrapolation():
    answer = plan(Question(student_params=3e8, budget=1e21))
    assert "Extrapolated" not in answer.headline
    assert not any("extrapolated" in warning for warning in answer.warnings)
    assert any(
        "within the fitted runs (143M to 12.6B parameters, up to 512B" in a for a in answer.assumptions
    )
    shared = plan(Question(family=(3e8, 5e8), budget=1e21, scenarios=(INFERENCE,)))
    assert all(way.teacher_tokens <= 5.13e11 for way in shared.distillations)
    near = plan(Question(student_params=3e8, budget=1e21, scenarios=(INFERENCE,), tolerance=0.01))
    assert near.distillations[0].near.ranges["teacher_tokens"][1] <= 5.13e11
