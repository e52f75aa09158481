"""Questions as people write them, and bad ones, which are answered with a sentence."""

import math

import pytest
from samples_of_calibrations import ask

from scaling import (
    InputError,
    KnownTeacher,
    Question,
)
from scaling.costs.scenarios import BEST_CASE


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"student_params": 1e9}, "give a budget or a target loss"),
        ({"student_params": 1e9, "budget": 1e21, "target_loss": 2.0}, "one of the two"),
        ({"student_params": 7, "budget": 1e21}, "student_params: 7 parameters is no size of a model"),
        ({"family": (1e8, 3e8, 1e8), "budget": 1e21}, "family: 100M is given twice; give each size once"),
        ({"family": (7, 1e9), "budget": 1e21}, "family: 7 parameters is no size"),
        ({"student_params": "a lot", "budget": 1e21}, "student_params: cannot read 'a lot'"),
        ({"student_params": 1e9, "budget": 1e21, "scenarios": ("free",)}, "unknown scenario 'free'"),
        (
            {"student_params": 1e9, "budget": 1e21, "constraints": {"teacher_params": (1, 2, 3)}},
            "write .smallest",
        ),
        ({"student_params": 1e9, "budget": 1e300}, "beyond 1e36"),
        ({"student_params": 1e9, "budget": -1.0}, "budget: must be positive"),
        ({"student_params": math.nan, "budget": 1e21}, "student_params: must be positive"),
        ({"student_params": 1e9, "budget": 1e9}, "too small: one token costs this student"),
        (
            {"student_params": 1e9, "budget": 1e21, "constraints": {"colour": (1, 2)}},
            "cannot constrain 'colour'",
        ),
        ({"student_params": 1e9, "budget": 1e21, "constraints": {"teacher_params": (2e9, 1e9)}}, "exceeds"),
        ({"student_params": 1e9, "budget": 1e21, "constraints": {"teacher_loss": (-1, None)}}, "positive"),
        (
            {"student_params": 1e9, "budget": 1e21, "constraints": {"teacher_params": 1e308}},
            "no bound may exceed",
        ),
        (
            {"student_params": 1e9, "budget": 1e20, "constraints": {"student_tokens": (1e12, None)}},
            "pays for",
        ),
        ({"student_params": 1e9, "budget": 1e21, "law": "astrology"}, "has no law 'astrology'"),
        ({"student_params": 1e9, "budget": 1e21, "lifetime_tokens": 1e15}, "too small to train and serve"),
        ({"student_params": 1e9, "budget": 1e21, "scenarios": ()}, "no scenario"),
        ({"family": (1e8, 1e9), "budget": 1e21, "weights": (1.0,)}, "2 students, but 1 weights"),
        (
            {"family": (1e8, 1e9), "budget": 1e21, "constraints": {"student_tokens": (1, 2)}},
            "the teacher only",
        ),
        (
            {"student_params": 1e9, "budget": 1e21, "constraints": {"student_params": (None, 1e8)}},
            "is given, but",
        ),
        ({"student_params": 1e9, "budget": 1e21, "weights": (1.0,)}, "belong to a family"),
        ({"budget": 1e21, "tolerance": 0.01}, "needs a student size and a budget"),
        ({"family": (1e8, 1e9), "target_loss": 2.0}, "a family needs a budget"),
        ({"family": (1e8, 1e9), "budget": 1e9}, "too small"),
    ],
)
def test_bad_questions_are_answered_with_a_sentence(question, message):
    with pytest.raises(InputError, match=message):
        ask(**question)


def test_questions_are_read_as_people_write_them():
    written = Question(
        student_params="1B", budget="1e22", scenarios=("best_case",), constraints={"teacher_params": "7B"}
    )
    assert written == Question(
        student_params=1e9, budget=1e22, scenarios=(BEST_CASE,), constraints={"teacher_params": (7e9, 7e9)}
    )


def test_teachers_that_cannot_be_meant():
    one = KnownTeacher(name="a", params=1e9, loss=2.2)
    with pytest.raises(InputError, match="several are called a"):
        ask(student_params=3e8, budget=1e21, teachers=(one, one))
    with pytest.raises(InputError, match=r"teacher b: a loss of .* is below the irreducible loss"):
        ask(student_params=3e8, budget=1e21, teachers=(KnownTeacher(name="b", params=1e9, loss=1.1),))
    with pytest.raises(InputError, match="guessing at random among 32768 tokens"):
        ask(student_params=3e8, budget=1e21, teachers=(KnownTeacher(name="c", params=1e9, loss=20.0),))


def test_constraints_on_teachers_that_are_given_contradict():
    known = (KnownTeacher(name="a", params=1e9, loss=2.2),)
    with pytest.raises(InputError, match="constrain the student only"):
        ask(student_params=3e8, budget=1e21, teachers=known, constraints={"teacher_params": (None, 1e8)})


def test_constraints_that_no_teacher_meets_leave_direct_training():
    answer = ask(
        student_params=1e9,
        budget=1e20,
        constraints={"teacher_params": (1e12, 1e13), "teacher_tokens": (1e12, 1e13)},
    )
    assert {way.name for way in answer.distillations} == {"best_case", "teacher_inference"}
    assert any("nothing within the constraints" in warning for warning in answer.warnings)
