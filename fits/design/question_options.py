"""Options of a question: what its budget could be spent on, with every teacher that could be had."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fits.design.points import Points
from fits.design.regret import DecisionOptions
from scaling.costs.flops import Architecture
from scaling.costs.flops_assumptions import knows_vocabulary, with_numbers
from scaling.costs.scenarios import Scenario, rates
from scaling.errors import InputError
from scaling.planner.question import CHINCHILLA, Question
from scaling.planner.teacher_catalogue import shared_vocabulary, with_vocabulary
from scaling.repeated_data import repeated_tokens_value
from scaling.units import format_number

SIZES = 2.0 ** np.arange(-4, 4)
"""Sizes that are compared where the question leaves the student's open, relative to Chinchilla's."""
TEACHERS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Sizes of teachers that are compared where none is named, relative to the student's."""
MOST_SIZES = 14
"""Sizes of teachers at most, where a constraint on teacher_params reaches further."""
SHARES = (0.03, 0.1, 0.2, 0.4)
"""Shares of the budget that train such a teacher."""
FEWEST_TOKENS = 0.1
"""Tokens per parameter below which a student is no option."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherOption:
    """Teacher that a student could be distilled from."""

    params: float
    tokens: float = math.nan
    loss: float = math.nan
    """nats/token, where it was measured; else the law predicts it from size and tokens."""
    forward_flops: float | None = None

    @property
    def label(self) -> str:
        """Size and tokens, in words."""
        tokens = f" on {format_number(self.tokens)}" if math.isfinite(self.tokens) else ""
        return f"{format_number(self.params)}{tokens}"


def decisions_of(
    questions: Sequence[Question], architecture: Architecture, teachers: Sequence[TeacherOption] = ()
) -> DecisionOptions:
    """Return the decisions of questions: one for each scenario of each.

    The options of a decision spend its whole budget: direct training, and distillation from each teacher that
    leaves enough for the student.

    Args:
        questions: Questions with a budget.
        architecture: Architecture that FLOPs are counted with where a question has none.
        teachers: Teachers that could be trained, or exist; a grid around the student's size if there are
            none, and none is named in the question.

    Equal questions count once, and named teachers of another vocabulary are left out.

    Raises:
        InputError: for a target loss or a family of students, a budget that pays for no option, or a
            vocabulary that is not the runs', of the question or of all its teachers.
    """
    points, groups, names, labels, notes, first = [], [], [], [], [], 0
    for asked in _distinct(questions):
        _check(asked)
        counting = named_vocabulary([asked], asked.architecture or architecture)
        question, warnings = _with_usable_teachers(asked, counting)
        notes += [*warnings, *_notes(question, teachers)]
        for scenario in question.scenarios:
            options, words = _options(question, scenario, counting, teachers)
            if not words:
                raise InputError(
                    f"question {question.describe()}: the budget pays for no student of at least "
                    f"{FEWEST_TOKENS:g} tokens per parameter"
                )
            points.append(options)
            groups.append(np.arange(first, first + len(words), dtype=np.intp))
            names.append(f"{question.describe()}, {scenario.title}")
            labels += words
            first += len(words)
    return DecisionOptions(
        options=Points.joined(points), groups=tuple(groups), names=tuple(names), labels=tuple(labels),
        notes=tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def named_vocabulary(questions: Sequence[Question], architecture: Architecture) -> Architecture:
    """Return the architecture; an assumed vocabulary gives way to the one that questions or teachers name.

    Raises:
        InputError: for teachers of several vocabularies in one question, where none is given.
    """
    if knows_vocabulary(architecture):
        return architecture
    named = {question.vocab or shared_vocabulary(question.teachers) for question in questions} - {None}
    return with_numbers(architecture, vocab=named.pop()) if len(named) == 1 else architecture


def _distinct(questions: Sequence[Question]) -> list[Question]:
    return [question for number, question in enumerate(questions) if question not in questions[:number]]


def _with_usable_teachers(question: Question, counting: Architecture) -> tuple[Question, list[str]]:
    """Return the question with the named teachers that a student can follow, and warnings of the others.

    Raises:
        InputError: if no named teacher is left, or for another vocabulary than that of the runs.
    """
    if not knows_vocabulary(counting):
        return question, []
    if question.vocab not in (None, counting.vocab):
        raise InputError(
            f"question {question.describe()}: vocab is {question.vocab}, that of the runs {counting.vocab}; "
            "losses per token of two vocabularies cannot be compared"
        )
    usable, warnings = with_vocabulary(question.teachers, counting.vocab)
    return replace(question, teachers=tuple(usable)), [f"! {warning}" for warning in warnings]


def _notes(question: Question, given: Sequence[TeacherOption]) -> Iterator[str]:
    """Yield which teachers a question compares, and a warning if all are smaller than its student."""
    student = max(_sizes(question))
    could_be = [each.params for each in given] or _teacher_sizes(question, student)
    allowed = [N for N in could_be if _between(question, "teacher_params", N)]
    params = sorted([each.params for each in question.teachers] or allowed)
    if not params:
        yield f"! the constraint on teacher_params leaves no teacher for a {format_number(student)} student"
        return
    low, high = format_number(params[0]), format_number(params[-1])
    yield (
        f"a {format_number(student)} student is compared trained directly and from teachers of "
        f"{low if low == high else f'{low} to {high}'} parameters"
    )
    if params[-1] < student:
        yield (
            f"! no teacher that is compared is as large as the {format_number(student)} student, so its "
            "decision says nothing of better ones: name those that you could have (--question, teachers:)"
        )


def _check(question: Question) -> None:
    if question.budget is None:
        raise InputError("the next runs are chosen for a budget: give one in place of a target loss")
    if question.family:
        raise InputError("the next runs are chosen for single students: ask one question for each size")


def _options(
    question: Question, scenario: Scenario, architecture: Architecture, teachers: Sequence[TeacherOption]
) -> tuple[Points, list[str]]:
    points, labels = [], []
    for N in _sizes(question):
        budget = float(question.budget or 0.0) - question.lifetime_tokens * float(
            architecture.forward_flops(N)
        )
        direct = budget / float(architecture.training_flops(N))
        if _in_bounds(question, N, direct):
            points.append(_point(question, N, direct))
            labels.append(f"{format_number(N)} trained directly on {format_number(direct)}")
        for teacher in _teachers(question, N, budget, architecture, teachers):
            tokens = _tokens_left(scenario, architecture, N, teacher, budget)
            if _in_bounds(question, N, tokens):
                points.append(_point(question, N, tokens, teacher))
                labels.append(f"{format_number(N)} distilled on {format_number(tokens)} from {teacher.label}")
    return (Points.joined(points) if points else Points.of([], [])), labels


def _sizes(question: Question) -> list[float]:
    """Return the student's size, or a grid around that of 20 tokens per parameter within its constraint."""
    if question.student_params is not None:
        return [question.student_params]
    low, high = question.constraints.get("student_params", (None, None))
    sizes = math.sqrt(float(question.budget or 0.0) / (6 * CHINCHILLA)) * SIZES
    inside = [float(N) for N in sizes if (low or 0.0) <= N <= (high or math.inf)]
    return inside or [float(side) for side in (low, high) if side is not None]


def _teachers(
    question: Question, N: float, budget: float, architecture: Architecture, given: Sequence[TeacherOption]
) -> list[TeacherOption]:
    """Return the teachers of a student: those named, those that could be had, or a grid."""
    if question.teachers:
        return [
            TeacherOption(
                params=teacher.params,
                tokens=math.nan if teacher.tokens is None else teacher.tokens,
                loss=math.nan if teacher.loss is None else teacher.loss,
                forward_flops=teacher.logit_flops(architecture),
            )
            for teacher in question.teachers
        ]
    found = list(given) or [
        TeacherOption(params=size, tokens=share * budget / float(architecture.training_flops(size)))
        for size in _teacher_sizes(question, N)
        for share in SHARES
    ]
    return [
        teacher
        for teacher in found
        if _between(question, "teacher_params", teacher.params)
        and _between(question, "teacher_tokens", teacher.tokens)
        and _between(question, "teacher_loss", teacher.loss)
    ]


def _teacher_sizes(question: Question, N: float) -> list[float]:
    """Return sizes of teachers from half to eight times the student's, or as far as a constraint says."""
    low, high = question.constraints.get("teacher_params", (None, None))
    sizes = [N * size for size in TEACHERS]
    while high is not None and 2 * sizes[-1] <= high < math.inf and len(sizes) < MOST_SIZES:
        sizes.append(2 * sizes[-1])
    while low is not None and low <= sizes[0] / 2 and len(sizes) < MOST_SIZES:
        sizes.insert(0, sizes[0] / 2)
    return sizes


def _tokens_left(
    scenario: Scenario, architecture: Architecture, N: float, teacher: TeacherOption, budget: float
) -> float:
    """Return the student's tokens once the teacher is paid for, by Eq. 9 of Busbridge et al. 2025."""
    own = teacher.forward_flops
    F_T = float(architecture.forward_flops(teacher.params)) if own is None else own
    per_token = rates(scenario, float(architecture.forward_flops(N)), F_T)
    trained = per_token.teacher * (0.0 if scenario.pretraining == 0 else teacher.tokens)
    return float((budget - trained) / (per_token.student + per_token.logits))


def _in_bounds(question: Question, N: float, tokens: float) -> bool:
    """Return whether a student is an option; nan tokens are none."""
    return tokens >= FEWEST_TOKENS * N and _between(question, "student_tokens", tokens)


def _between(question: Question, name: str, value: float) -> bool:
    low, high = question.constraints.get(name, (None, None))
    return math.isnan(value) or (low or 0.0) <= value <= (high or math.inf)


def _point(question: Question, N: float, tokens: float, teacher: TeacherOption | None = None) -> Points:
    seen = repeated_tokens_value(tokens, question.student_unique_tokens)
    if teacher is None:
        return Points.of(N, seen)
    if math.isfinite(teacher.loss):
        return Points.of(N, seen, teacher.loss)
    return Points.of(N, seen, np.nan, teacher.params, teacher.tokens)
