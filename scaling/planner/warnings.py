"""Warnings of a plan, each once, with the ways it holds for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from scaling.calibration.calibration import Calibration
from scaling.calibration.region import FAR
from scaling.planner.plan import Direct, Distillation
from scaling.repeated_data import MANY_EPOCHS, TOO_MANY_EPOCHS
from scaling.units import format_number, format_times

DISAGREEMENT = 0.01
"""nats/token; laws of one calibration that differ by more are reported."""
LONGEST_LIST = 60
"""Characters of a list of ways above which their number stands in its place."""
NOT_CREDIBLE = (
    "the loss is below that of direct training of this size on unlimited data: an artifact of extrapolating "
    "the law; there is no verdict"
)


def weak_teacher(reason: str, kind: str) -> str:
    """Return the warning that a law of this kind has no form for students better than their teacher."""
    return f"{reason}: the {kind} law cannot represent a student that beats its teacher"


def plan_warnings(
    calibration: Calibration,
    alone: Sequence[Direct],
    ways: Sequence[Distillation],
    student_unique_tokens: float,
    teacher_unique_tokens: float,
) -> tuple[str, ...]:
    """Return warnings of extrapolation, repetition, disagreement of the laws, and of single ways."""
    titles = [way.title for way in ways]
    seen = [("direct training", way.tokens) for way in alone] + [(way.title, way.tokens) for way in ways]
    taught = [(way.title, way.teacher_tokens or 0.0) for way in ways]
    own = ((way.title, warning) for way in ways for warning in way.warnings)
    return (
        *_extrapolation(alone, ways),
        *_once(_repetitions("the student's", seen, student_unique_tokens)),
        *_once(_repetitions("the teacher's", taught, teacher_unique_tokens)),
        *_disagreements(calibration, ways),
        *_beyond_law(calibration, ways),
        *_once(own, titles),
        *_once(((way.title, NOT_CREDIBLE) for way in ways if not way.credible), titles),
    )


def _extrapolation(alone: Sequence[Direct], ways: Sequence[Distillation]) -> list[str]:
    """Return one sentence with every variable far outside the fitted runs and by how many times, or none."""
    far: dict[str, dict[str, float]] = {}
    outside = [(f"direct training of {format_number(way.params)}", way.outside) for way in alone]
    if len(outside) == 1:
        outside = [("direct training", outside[0][1])]
    outside += [(way.title, way.outside) for way in ways]
    for title, factors in outside:
        for name, factor in factors.items():
            if factor > FAR:
                name = name if name.startswith(("student", "teacher")) else f"student_{name}"
                far.setdefault(name, {})[title] = factor
    if not far:
        return []
    texts = [
        _beyond(name, factors, len(ways) if name.startswith("teacher") else len(outside))
        for name, factors in far.items()
    ]
    return [f"extrapolated beyond the fitted runs: {'; '.join(texts)}"]


def _beyond(name: str, factors: Mapping[str, float], ways: int) -> str:
    """Return a variable, its smallest and largest factor, and the ways where these are not all ``ways``."""
    ends = dict.fromkeys(map(format_times, (min(factors.values()), max(factors.values()))))
    whose = "" if len(factors) == ways else f" ({', '.join(factors)})"
    if len(whose) > LONGEST_LIST:
        whose = f" ({len(factors)} of {ways} ways)"
    return f"{name.replace('_', ' ')} {' to '.join(ends)}{whose}"


def _once(warnings: Iterable[tuple[str, str]], every: Sequence[str] = ()) -> list[str]:
    """Return ``warning: titles`` for every warning; titles that are ``every`` one are not listed."""
    titles: dict[str, list[str]] = {}
    for title, warning in warnings:
        titles.setdefault(warning, []).append(title)
    return [f"{warning}: {_named(dict.fromkeys(each), every)}" for warning, each in titles.items()]


def _named(titles: Iterable[str], every: Sequence[str]) -> str:
    named = list(titles)
    return (
        "every way to distil" if len(named) > 2 and set(named) == set(every) else joined_titles(named, every)
    )


def joined_titles(titles: Sequence[str], every: Sequence[str]) -> str:
    """Return titles in one line; those of a family by student, where all of its ways are meant, else by way.

    >>> ways = [f"{size} student: {way}" for size in ("1B", "3B") for way in ("free", "paid")]
    >>> joined_titles(ways[:3], ways)
    '1B student; free (3B)'
    """
    pairs = [title.partition(": ")[::2] for title in titles]
    if not all(student.endswith(" student") for student, _ in pairs):
        return "; ".join(titles)
    whole = [
        student
        for student in dict.fromkeys(student for student, _ in pairs)
        if _all_of(student, titles, every)
    ]
    students: dict[str, list[str]] = {}
    for student, way in pairs:
        if student not in whole:
            students.setdefault(way, []).append(student.removesuffix(" student"))
    return "; ".join([*whole, *(f"{way} ({', '.join(each)})" for way, each in students.items())])


def _all_of(student: str, titles: Sequence[str], every: Sequence[str]) -> bool:
    own = [title for title in every if title.startswith(f"{student}: ")]
    return len(own) > 1 and set(own) <= set(titles)


def _repetitions(whose: str, seen: Sequence[tuple[str, float]], unique: float) -> Iterable[tuple[str, str]]:
    for title, tokens in seen:
        epochs = tokens / unique
        name = f"{title} ({format_number(epochs)})"
        if epochs > TOO_MANY_EPOCHS:
            yield name, f"over {TOO_MANY_EPOCHS:.0f} epochs of {whose} data, where more are worth nothing"
        elif epochs > MANY_EPOCHS:
            yield name, f"over {MANY_EPOCHS:.0f} epochs of {whose} data, where more are worth clearly less"


def _disagreements(calibration: Calibration, ways: Sequence[Distillation]) -> list[str]:
    """Return where the laws differ on the loss, and which of them are outside their own region there.

    A law that held-out runs refute counts only where it has a say.
    """
    weights = calibration.law_weights
    heard = {law for way in ways for law in calibration.votes(student_params=way.params)}
    laws = [law for law in calibration.distillation if weights.get(law, 1.0) > 0 or law in heard]
    spreads = (max(losses) - min(losses) for losses in ([way.by_law[law] for law in laws] for way in ways))
    most = max(spreads, default=0.0)
    if most <= DISAGREEMENT:
        return []
    texts = [f"the laws ({', '.join(laws)}) disagree by up to {most:.3f} nats"]
    for law in laws:
        region = calibration.law_regions.get(law)
        out = [way.title for way in ways if not calibration.trusts(law, student_params=way.params)]
        if out and not (region and region.note):  # a region with a note has a warning of its own
            texts.append(f"{law} is outside its region for {'; '.join(out)}")
    return [f"model uncertainty: {', and '.join(texts)}"]


def _beyond_law(calibration: Calibration, ways: Sequence[Distillation]) -> list[str]:
    """Return the ways outside the region of a law that counts elsewhere, with what is known there."""
    doubts = []
    for law, region in calibration.law_regions.items():
        if region.note and calibration.law_weights.get(law, 1.0) > 0:
            out = [way.title for way in ways if not calibration.trusts(law, student_params=way.params)]
            doubts += [(title, f"outside the region of the {law} law, {region.note}") for title in out]
    return _once(doubts, [way.title for way in ways])
