"""Effect of assumed numbers of the FLOP accounting on a plan: tokens, compute, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from scaling.costs.flops import Architecture
from scaling.costs.flops_assumptions import Accounting, assumed, assumption_text, extremes
from scaling.errors import InputError
from scaling.planner.plan import Plan
from scaling.planner.question import Question
from scaling.units import format_number, format_power

MOST_VERDICTS = 2
"""Changed verdicts up to which all are named."""


def assumption_effect(
    question: Question,
    architecture: Architecture,
    counted: Accounting,
    answer: Plan,
    planned: Callable[[Question], Plan],
) -> str:
    """Return the effect of assumed numbers on ``answer``, in a sentence; empty where none is assumed.

    The question is ``planned`` again where a token costs least and most within the plausible ranges.
    """
    names = assumed(counted)
    if not names or not (answer.direct or answer.distillations):
        return ""
    size = (answer.direct or answer.distillations)[0].params
    ends = []
    for extreme in extremes(architecture, names, size):
        try:
            ends.append(planned(replace(question, architecture=extreme, tolerance=None)))
        except InputError:
            continue  # where a token costs more than the budget
    found = [_moved(answer, ends), _verdicts(answer, ends)]
    if len(ends) < 2:
        found.append("where a token costs most the budget pays for none")
    return f"{assumption_text(counted, names)}, {'; '.join(text for text in found if text)}."


def _moved(answer: Plan, ends: Sequence[Plan]) -> str:
    """Return how far the tokens of direct training move, or its compute for a target loss."""
    known = [end.direct[0] for end in ends if end.direct]
    if not answer.direct or not known:
        return ""
    if answer.target_loss is None:
        tokens = [format_number(way.tokens) for way in sorted(known, key=lambda way: way.tokens)]
        return f"direct training sees {_span(tokens)} tokens ({format_number(answer.direct[0].tokens)} here)"
    flops = [format_power(way.flops) for way in sorted(known, key=lambda way: way.flops)]
    return f"direct training takes {_span(flops)} FLOPs ({format_power(answer.direct[0].flops)} here)"


def _span(ends: Sequence[str]) -> str:
    return ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}"


def _verdicts(answer: Plan, ends: Sequence[Plan]) -> str:
    """Return the verdicts that change, in words."""
    texts: list[str] = []
    for way in answer.distillations:
        others = [each.verdict for end in ends for each in end.distillations if each.name == way.name]
        changed = list(dict.fromkeys(verdict for verdict in others if verdict != way.verdict))
        if changed:
            texts.append(f"{way.title}, from {way.verdict!r} to {' or '.join(map(repr, changed))}")
    if len(texts) > MOST_VERDICTS:
        return f"{len(texts)} of {len(answer.distillations)} verdicts change, such as {texts[0]}"
    if texts:
        return f"the verdict changes: {' and '.join(texts)}"
    return "no verdict changes" if answer.distillations else ""
