"""Warnings of a plan, each once, with the ways it holds for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scaling.calibration.calibration import Calibration
from scaling.calibration.region import beyond
from scaling.planner.plan import Direct, Distillation
from scaling.repeated_data import MANY_EPOCHS, TOO_MANY_EPOCHS
from scaling.units import format_number

DISAGREEMENT = 0.01
"""nats/token; laws of one calibration that differ by more are reported."""
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
    outside = [("direct training", way.outside) for way in alone] + [(way.title, way.outside) for way in ways]
    far = ((title, beyond(factors)) for title, factors in outside)
    seen = [("direct training", way.tokens) for way in alone] + [(way.title, way.tokens) for way in ways]
    taught = [(way.title, way.teacher_tokens or 0.0) for way in ways]
    own = ((way.title, warning) for way in ways for warning in way.warnings)
    return (
        *(
            f"extrapolated beyond the fitted runs, {line}"
            for line in _once((t, text) for t, text in far if text)
        ),
        *_once(_repetitions("the student's", seen, student_unique_tokens)),
        *_once(_repetitions("the teacher's", taught, teacher_unique_tokens)),
        *_disagreements(calibration, ways),
        *_beyond_law(calibration, ways),
        *_once(own),
        *_once((way.title, NOT_CREDIBLE) for way in ways if not way.credible),
    )


def _once(warnings: Iterable[tuple[str, str]]) -> list[str]:
    """Return ``warning: titles`` for every warning."""
    titles: dict[str, list[str]] = {}
    for title, warning in warnings:
        titles.setdefault(warning, []).append(title)
    return [f"{warning}: {'; '.join(dict.fromkeys(each))}" for warning, each in titles.items()]


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
    return _once(doubts)
