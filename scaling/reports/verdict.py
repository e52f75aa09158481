"""Verdict of a plan in sentences: what to do, the cheapest way to a target, and what it leaves out."""

from __future__ import annotations

from collections.abc import Sequence

from scaling.calibration.region import FAR
from scaling.planner.plan import CLOSE, DISTIL, Distillation, Plan
from scaling.repeated_data import TOO_MANY_EPOCHS
from scaling.units import format_number, format_power, format_times


def headline(plan: Plan) -> str:
    """Return the verdict in one sentence per kind of answer, the cheapest way to a target first."""
    groups: dict[str, list[Distillation]] = {}
    for way in sorted(plan.distillations, key=lambda way: not way.answered):
        groups.setdefault(way.verdict, []).append(way)
    sentences = [
        f"{verdict.capitalize()}{_probabilities(ways)}"
        + (f": {'; '.join(way.title for way in ways)}." if len(groups) > 1 else ".")
        for verdict, ways in groups.items()
    ]
    if plan.distillations and plan.question.get("teachers"):
        sentences = [teacher_verdict(plan.distillations)]
    if not sentences and not plan.unreachable:
        sentences = ["Train directly: no teacher satisfies the constraints."]
    if plan.law is None:
        sentences = ["Direct training only: the calibration has no distillation law."]
    return " ".join([*cheapest(plan), *sentences, *remarks(plan)])


def cheapest(plan: Plan) -> list[str]:
    """Return the cheapest way to the target, in one sentence; none where the plan has a budget."""
    if plan.target_loss is None:
        return []
    ways = {way.title: way.flops for way in plan.distillations if way.answered}
    if plan.direct and plan.direct[0].known:
        ways["direct training"] = plan.direct[0].flops
    if not ways:
        return [f"No cheapest way to a loss of {plan.target_loss:g}: all lie too far from the fitted runs."]
    best = min(ways, key=lambda name: ways[name])
    return [f"Cheapest way to a loss of {plan.target_loss:g}: {best}, {format_power(ways[best])} FLOPs."]


def remarks(plan: Plan) -> list[str]:
    """Return what belongs beside the verdict: what is not counted, and extrapolation."""
    sentences = _uncounted(plan)
    outside = [way.outside for way in plan.direct] + [way.outside for way in plan.distillations]
    farthest = max((factor for each in outside for factor in each.values()), default=1.0)
    if farthest > FAR:
        sentences.append(f"Extrapolated up to {format_times(farthest)} beyond the fitted runs.")
    return sentences


def teacher_verdict(ways: Sequence[Distillation]) -> str:
    """Return which teacher pays, if any does; they come best first."""
    pays = [way.title for way in ways if way.verdict == DISTIL]
    close = [way.title for way in ways if way.verdict == CLOSE]
    unknown = [way.title for way in ways if not way.answered]
    if pays:
        text = f"Distil from {pays[0]}" + (f", or from {', '.join(pays[1:])}" if pays[1:] else "")
    elif close:
        text = f"No teacher clearly pays; too close to call: {', '.join(close)}"
    elif len(unknown) < len(ways):
        text = "No teacher pays: train directly"
    else:
        text = ""
    told = [text] if text else []
    if unknown:
        told.append(f"No answer for {', '.join(unknown)}: {ways[-1].verdict.removeprefix('no answer, ')}")
    return ". ".join(told) + "."


def _uncounted(plan: Plan) -> list[str]:
    """Return costs and risks that the verdict leaves out."""
    texts = []
    unpaid = [way.dollars for way in plan.distillations if way.dollars and not way.logits_flops]
    if unpaid:
        texts.append(
            f"Not in this comparison: up to ${format_number(max(unpaid))} for served logits; name the "
            "hardware to count them."
        )
    tokens = [way.tokens for way in plan.direct] + [way.tokens for way in plan.distillations]
    epochs = plan.epochs(max(tokens, default=0.0))
    if epochs > TOO_MANY_EPOCHS:
        texts.append(f"The data repeat up to {format_number(epochs)} times, far beyond what was measured.")
    return texts


def _probabilities(ways: list[Distillation]) -> str:
    known = [way.probability for way in ways if way.probability is not None]
    if not known:
        return ""
    low, high = (f"{value:.2f}" for value in (min(known), max(known)))
    return f" (P(distilling is better) = {low if low == high else f'{low} to {high}'})"
