"""Weights of laws: regions, laws that the runs refute, teachers unlike those of any run."""

from dataclasses import replace

import numpy as np
import pytest
from samples_of_calibrations import B100, calibration

from scaling import Calibration, EffectiveTokensLaw, InputError, Question, Region, frontier, plan, predict
from scaling.planner.plan import REFUSED

WORTHLESS = EffectiveTokensLaw(k=1e-4, q=9.0, eps=0.02)
"""Law whose students learn nothing from a teacher's distributions, and follow it where it is worse."""
GENEROUS = EffectiveTokensLaw(k=40.0, q=60.0, eps=0.02)
"""Law whose teachers multiply tokens by about 40."""


def two(weights=None, **changes):
    """A law under which distilling rarely pays beside one under which it always does."""
    laws = {"effective-tokens": WORTHLESS, "effective-tokens-capacity": replace(GENEROUS, variant="capacity")}
    residual_sd = {"supervised": 0.004, **dict.fromkeys(laws, 0.006)}
    return calibration(distillation=laws, residual_sd=residual_sd, law_weights=weights or {}, **changes)


def test_without_weights_all_laws_that_hold_count_the_same():
    both = two(law_regions={"effective-tokens-capacity": Region(student_params=(1e8, 2e9))})
    assert both.votes(student_params=1e9) == {"effective-tokens": 0.5, "effective-tokens-capacity": 0.5}
    assert both.votes(student_params=3e9) == {"effective-tokens": 1.0}


def test_weights_are_shared_among_the_laws_that_hold():
    three = calibration(
        distillation={
            "effective-tokens": WORTHLESS,
            "effective-tokens-capacity": replace(GENEROUS, variant="capacity"),
            "published-9": B100,
        },
        law_weights={"effective-tokens": 0.6, "effective-tokens-capacity": 0.3, "published-9": 0.1},
        law_regions={"effective-tokens": Region(student_params=(1e8, 2e9))},
    )
    assert three.votes(student_params=1e9) == pytest.approx(dict(three.law_weights))
    above = three.votes(student_params=3e9)
    assert above == pytest.approx({"effective-tokens-capacity": 0.75, "published-9": 0.25})
    assert sum(above.values()) == pytest.approx(1)


def test_a_refuted_law_has_no_vote_but_where_the_default_does_not_hold():
    weights = {"effective-tokens": 1.0, "effective-tokens-capacity": 0.0}
    both = two(weights, law_regions={"effective-tokens": Region(student_params=(1e8, 2e9))})
    assert both.votes(student_params=1e9) == {"effective-tokens": 1.0}
    assert both.votes(student_params=3e9) == {"effective-tokens": 0.5, "effective-tokens-capacity": 0.5}


@pytest.mark.parametrize("student", ["150M", "200M", "300M"])
@pytest.mark.parametrize("budget", [5e20, 1e21, 3e21])
def test_a_refuted_law_does_not_turn_a_clear_verdict_into_a_doubtful_one(student, budget):
    """Eighteen verdicts that the law which holds decides; averaged with the other none is left."""
    question = Question(
        student_params=student, budget=budget, scenarios=("teacher_inference", "teacher_pretraining")
    )
    weighed = plan(question, two({"effective-tokens": 1.0, "effective-tokens-capacity": 0.0}))
    averaged = plan(question, two())
    assert [way.verdict for way in weighed.distillations] == ["train directly"] * 2
    assert [way.verdict for way in averaged.distillations] == ["too close to call"] * 2


def test_intervals_are_of_the_laws_that_have_a_say():
    question = Question(student_params="500M", budget=1e21)
    weighed = plan(question, two({"effective-tokens": 1.0, "effective-tokens-capacity": 0.0}))
    averaged = plan(question, two())
    for narrow, wide in zip(weighed.distillations, averaged.distillations, strict=True):
        assert wide.loss.low < narrow.loss.low
        assert narrow.loss.value == wide.loss.value
        assert narrow.by_law == wide.by_law
    assert any("model uncertainty" in warning for warning in averaged.warnings)
    assert not any("model uncertainty" in warning for warning in weighed.warnings)
    assert any("effective-tokens 1.00; effective-tokens-capacity without a say" in text
               for text in with_draws(weighed_calibration()).assumptions)  # fmt: skip


def weighed_calibration():
    return two({"effective-tokens": 1.0, "effective-tokens-capacity": 0.0})


def with_draws(fitted):
    from scaling.laws import coefficients

    laws = {"supervised": fitted.supervised, **fitted.distillation}
    draws = {
        kind: {name: np.full(30, float(value)) for name, value in coefficients(law).items()}
        for kind, law in laws.items()
    }
    return plan(Question(student_params="500M", budget=1e21), replace(fitted, draws=draws))


def test_weights_survive_the_file():
    fitted = weighed_calibration()
    again = Calibration.from_json(fitted.to_json())
    assert again.law_weights == fitted.law_weights
    assert again.votes(student_params=1e9) == {"effective-tokens": 1.0}


@pytest.mark.parametrize(
    "weights",
    [
        {"effective-tokens": 1.0},
        {"effective-tokens": 0.5, "effective-tokens-capacity": 0.4},
        {"effective-tokens": 1.5, "effective-tokens-capacity": -0.5},
        {"effective-tokens": 0.5, "effective-tokens-capacity": 0.3, "published": 0.2},
    ],
)
def test_weights_that_are_none_are_rejected(weights):
    with pytest.raises(InputError, match="law_weights"):
        two(weights)


def test_a_published_law_says_nothing_of_teachers_better_than_any_fitted():
    fitted = calibration(residual_sd={"supervised": 0.004, "published-9": 0.006})
    assert not fitted.refuses("published-9", 1.895)  # of 1.9
    assert fitted.refuses("published-9", 1.85)
    question = Question(student_params="7B", budget=1e24, scenarios=("teacher_pretraining",))
    (way,) = plan(question, fitted).distillations
    assert way.teacher_loss < 1.85
    assert way.verdict == REFUSED
    assert way.probability is None
    (way,) = plan(replace(question, student_params=3e8, budget=1e21), fitted).distillations
    assert way.verdict != REFUSED


def test_the_effective_tokens_laws_are_not_refused_for_better_teachers():
    question = Question(student_params="7B", budget=1e24, scenarios=("teacher_pretraining",))
    (way,) = plan(question, two()).distillations
    assert way.teacher_loss < 1.85
    assert way.verdict != REFUSED


def test_a_prediction_leaves_the_published_law_out_and_says_why():
    both = calibration(distillation={"published-9": B100, "effective-tokens": WORTHLESS})
    asked = {"student_params": 1e9, "student_tokens": 2e10}
    assert set(predict(both, **asked, teacher_loss=2.0).losses) >= {"published-9", "effective-tokens"}
    better = predict(both, **asked, teacher_loss=1.7)
    assert "published-9" not in better.losses
    assert any("published-9 law is not asked" in warning for warning in better.warnings)


def test_a_frontier_names_the_budgets_whose_teacher_the_law_does_not_know():
    found = frontier(
        Question(student_params="7B", scenarios=("teacher_pretraining",), budget=1e24), np.geomspace(1e21, 1e25, 9),
        calibration(),
    )  # fmt: skip
    (track,) = found.tracks.values()
    ((low, high),) = track.refused
    assert low > 1e21
    assert high == pytest.approx(1e25)
    assert "its teacher is better than any that the law was fitted to" in found.headline
