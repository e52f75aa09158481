"""A plan in brief, as wide as the terminal: the verdict, one table of what decides, and warnings.

What the columns leave out (intervals, ranges of the optima, second laws, assumptions) is in
:func:`scaling.reports.plan_text.plan_text`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from scaling.costs.hardware import Hardware
from scaling.costs.scenarios import DESCRIPTIONS
from scaling.planner.plan import CLOSE, DIRECT, DISTIL, Distillation, Plan
from scaling.planner.warnings import joined_titles
from scaling.reports.plan_text import (
    BILL,
    Way,
    asked,
    bill,
    effect,
    folded_table,
    near_optimal_notes,
    signed,
    text_table,
    wrapped,
)
from scaling.reports.verdict import cheapest, remarks, teacher_verdict
from scaling.units import format_number, format_power

NARROWEST = 60
"""Columns below which a table is not squeezed further."""
GAP = 2
SHORT = {DISTIL: "distil", CLOSE: "close", DIRECT: "direct"}
FOOT = (
    "Losses are held-out nats/token; P is the probability that distilling is better. "
    "--details: intervals, ranges, second laws, assumptions."
)


class Column(NamedTuple):
    """A column of the table."""

    title: str
    cell: Callable[[Way], str]
    rank: int
    """Columns of a high rank are the first to go where there is no room."""


def plan_brief(
    plan: Plan, hardware: Hardware | None = None, extra: Sequence[str] = (), width: int = 80
) -> str:
    """Return a plan in lines of at most ``width`` columns, as far as its names allow.

    Args:
        plan: The answer to a question.
        hardware: Counts hours and dollars, in columns of their own.
        extra: Further notes, one a line.
        width: Columns of the terminal.
    """
    width = max(width, NARROWEST)
    table = _family_table(plan, width) if plan.question.get("family") else _table(plan, hardware, width)
    stops = [
        f"! {DESCRIPTIONS.get(name, name)}: stops at a loss of {floor:.3f}, above the target"
        for name, floor in plan.unreachable.items()
    ]
    warned = [*near_optimal_notes(plan), *stops, *(f"! {text}" for text in plan.warnings), *extra]
    blocks = [
        wrapped([" ".join(verdict(plan)), *effect(plan)], width),
        table,
        wrapped([asked(plan), *warned, FOOT], width),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def verdict(plan: Plan) -> list[str]:
    """Return the verdict in sentences; the table holds its probabilities."""
    if plan.law is None:
        found = ["Direct training only: the calibration has no distillation law."]
    elif plan.question.get("teachers"):
        found = [teacher_verdict(plan.distillations)]
    elif plan.distillations:
        found = _of_scenarios(plan.distillations)
    else:
        found = [] if plan.unreachable else ["Train directly: no teacher satisfies the constraints."]
    return [*cheapest(plan), *found, *remarks(plan)]


def _of_scenarios(ways: Sequence[Distillation]) -> list[str]:
    groups: dict[str, list[str]] = {}
    every = [way.title for way in ways]
    for way in sorted(ways, key=lambda way: not way.answered):
        groups.setdefault(way.verdict, []).append(way.title)
    if len(groups) == 1:
        return [f"{next(iter(groups)).capitalize()}."]
    return [f"{each.capitalize()}: {joined_titles(titles, every)}." for each, titles in groups.items()]


def _table(plan: Plan, hardware: Hardware | None, width: int) -> list[str]:
    ways: list[Way] = [*plan.distillations, *plan.direct]
    columns = _fitting(_columns(plan, ways, hardware), ways, width)
    rows = [[column.cell(way) for column in columns] for way in ways]
    return text_table([column.title for column in columns], rows) if ways else []


def _columns(plan: Plan, ways: Sequence[Way], hardware: Hardware | None) -> list[Column]:
    aims = plan.target_loss is not None
    columns = [
        Column("way", lambda way: way.title if isinstance(way, Distillation) else "direct training", 0),
        Column("verdict", _distilled(lambda way: SHORT.get(way.verdict, "unknown")), 7),
        Column("P", _distilled(lambda way: "" if way.probability is None else f"{way.probability:.2f}"), 1),
    ]
    if aims:
        columns.append(Column("FLOPs", lambda way: format_power(way.flops), 2))
    columns += [
        Column("loss", lambda way: f"{way.loss.value:.3f}", 9 if aims else 2),
        Column("gain", _distilled(lambda way: signed(way.gain.value)), 10 if aims else 3),
    ]
    if len({way.params for way in ways}) > 1:
        columns.append(Column("student", lambda way: format_number(way.params), 5))
    columns.append(Column("tokens", lambda way: format_number(way.tokens), 4))
    if plan.student_unique_tokens is not None:
        columns.append(Column("epochs", lambda way: f"{plan.epochs(way.tokens):.3g}", 8))
    columns.append(Column("teacher N, D", _distilled(_teacher), 6))
    if any(way.dollars is not None for way in plan.distillations):
        columns.append(Column("logits $", _distilled(lambda way: format_number(way.dollars or 0.0)), 11))
    if hardware is not None:
        known = bill(ways[0], hardware)
        columns += [
            Column(title, lambda way, cost=cost: format_number(bill(way, hardware)[cost]), 12)  # type: ignore[misc]
            for title, cost in BILL.items()
            if cost in known and cost != "wall_hours"
        ]
    return columns


def _fitting(columns: Sequence[Column], ways: Sequence[Way], width: int) -> list[Column]:
    """Return the columns of the lowest ranks that fit beside each other."""
    widths = [max(len(column.title), *(len(column.cell(way)) for way in ways)) + GAP for column in columns]
    kept: set[int] = set()
    for k in sorted(range(len(columns)), key=lambda k: columns[k].rank):
        if columns[k].rank == 0 or sum(widths[each] for each in (*kept, k)) - GAP <= width:
            kept.add(k)
    return [column for k, column in enumerate(columns) if k in kept]


def _family_table(plan: Plan, width: int) -> list[str]:
    """Return a row for each way and a column for each student: gain in nats/token and P."""
    students = [f"{format_number(way.params)} student" for way in plan.direct]
    rows = {"direct training, loss": [f"{way.loss.value:.3f}" for way in plan.direct]}
    for way in plan.distillations:
        rows.setdefault(way.title.partition(": ")[2], []).append(
            f"{signed(way.gain.value)} ({way.probability:.2f})"
            if way.probability is not None
            else signed(way.gain.value)
        )
    cells = [[name, *each] for name, each in rows.items()]
    return folded_table(["gain (P)", *students], cells, width)


def _distilled(cell: Callable[[Distillation], str]) -> Callable[[Way], str]:
    """Return a cell that is empty for direct training."""
    return lambda way: cell(way) if isinstance(way, Distillation) else ""


def _teacher(way: Distillation) -> str:
    tokens = "" if way.teacher_tokens is None else f", {format_number(way.teacher_tokens)}"
    return f"{format_number(way.teacher_params)}{tokens}"
