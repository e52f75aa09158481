"""A plan as a table, for a terminal and for a notebook; numbers rounded for a person."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields

from scaling.calibration.calibration import SUPERVISED, Calibration
from scaling.costs.flops_assumptions import accounting
from scaling.costs.hardware import Hardware
from scaling.costs.scenarios import SCENARIOS, scenario_title
from scaling.laws import AnySupervisedLaw, DistillationLaw, coefficients
from scaling.planner.plan import Direct, Distillation, Plan
from scaling.reports.html import html_answer
from scaling.units import format_number, format_power

DECIDED = ("flops", "student_params", "student_tokens", "teacher_params", "teacher_tokens")
BILL = {"GPU-hours": "device_hours", "wall hours": "wall_hours", "$": "dollars"}
Table = tuple[list[str], list[list[str]]]
Way = Direct | Distillation
Column = tuple[str, Callable[[Way], str]]


def plan_table(plan: Plan, hardware: Hardware | None = None) -> Table:
    """Return header and cells: direct training, then the ways to distil, with their bill on ``hardware``."""
    ways: list[Way] = [*plan.direct, *plan.distillations]
    columns = list(_columns(plan, ways, hardware))
    return [name for name, _ in columns], [[cell(way) for _, cell in columns] for way in ways]


def _columns(plan: Plan, ways: Sequence[Way], hardware: Hardware | None) -> Iterator[Column]:
    yield "way", lambda way: way.title if isinstance(way, Distillation) else "direct training"
    yield "loss (90 %)", lambda way: str(way.loss)
    for law in _other_laws(plan):
        yield law, _distilled(lambda way, law=law: f"{way.by_law[law]:.3f}")  # type: ignore[misc]
    yield "gain", _distilled(lambda way: signed(way.gain.value))
    yield "P(distil)", _distilled(lambda way: "" if way.probability is None else f"{way.probability:.2f}")
    if len({way.params for way in ways}) > 1:
        yield "student", lambda way: format_number(way.params)
    yield "student tokens", lambda way: format_number(way.tokens)
    if plan.student_unique_tokens is not None:
        yield "epochs", lambda way: f"{plan.epochs(way.tokens):.3g}"
        yield "direct on the same tokens", _distilled(lambda way: f"{way.same_data_loss:.3f}")
    yield "teacher", _distilled(_teacher)
    yield "compute %", lambda way: "/".join(map(str, percentages(way.shares)))
    if any(way.dollars is not None for way in plan.distillations):
        yield "logits $", _distilled(lambda way: "" if way.dollars is None else format_number(way.dollars))
    if plan.target_loss is not None:
        yield "FLOPs", lambda way: format_power(way.flops)
    if hardware is not None:
        known = bill(ways[0], hardware)
        for title, cost in ((title, cost) for title, cost in BILL.items() if cost in known):
            yield title, lambda way, cost=cost: format_number(bill(way, hardware)[cost])  # type: ignore[misc]


def bill(way: Way, hardware: Hardware) -> dict[str, float]:
    """Return device hours, hours of waiting, and dollars with those for logits that somebody else serves.

    There are no dollars where the device's price is not known.
    """
    hours = {
        "device_hours": hardware.device_hours(way.own_flops),
        "wall_hours": hardware.wall_hours(way.own_flops),
    }
    if hardware.dollars_per_hour is None:
        return hours
    bought = way.dollars or 0.0 if isinstance(way, Distillation) else 0.0
    return hours | {"dollars": hardware.dollars(way.own_flops) + bought}


def signed(value: float) -> str:
    """Return a gain with its sign; a zero has none."""
    text = f"{value:+.3f}"
    return " 0.000" if float(text) == 0 else text


def _distilled(cell: Callable[[Distillation], str]) -> Callable[[Way], str]:
    """Return a cell that is empty for direct training."""
    return lambda way: cell(way) if isinstance(way, Distillation) else ""


def _teacher(way: Distillation) -> str:
    tokens = "" if way.teacher_tokens is None else f" on {format_number(way.teacher_tokens)}"
    return f"{format_number(way.teacher_params)}{tokens}, L={way.teacher_loss:.3f}"


def percentages(shares: Sequence[float]) -> list[int]:
    """Return shares of a whole in whole percent that sum to 100: the largest remainders are rounded up."""
    floors = [int(100 * share) for share in shares]
    order = sorted(range(len(shares)), key=lambda k: floors[k] - 100 * shares[k])
    for k in order[: 100 - sum(floors)]:
        floors[k] += 1
    return floors


def _other_laws(plan: Plan) -> list[str]:
    return [law for law in plan.distillations[0].by_law if law != plan.law] if plan.distillations else []


def asked(plan: Plan) -> str:
    """Return the question as it was read."""
    law = f", law {plan.law}" if plan.law else ""
    return f"{plan.asked}; calibration {plan.calibration}{law}."


def notes(plan: Plan) -> list[str]:
    """Return notes: near-optimal ranges (``~``), warnings (``!``) and assumptions (``-``)."""
    lines = [f"~ {way.title}: {text}" for way in plan.distillations if (text := _decisions(way))]
    lines += near_optimal_notes(plan)
    for name, floor in plan.unreachable.items():
        lines.append(f"! {scenario_title(name)}: reaches a loss of {floor:.3f} at best, above the target")
    lines += [f"! {warning}" for warning in plan.warnings]
    return lines + [f"- {text}" for text in (*_scenario_names(plan), *plan.assumptions)]


def near_optimal_notes(plan: Plan) -> list[str]:
    """Return the teachers and token counts within the tolerance of each optimum, if one was given."""
    lines = []
    for way in plan.distillations:
        if way.near is not None:
            spans = ", ".join(
                f"{name.replace('_', ' ')} {format_number(low)} to {format_number(high)}"
                for name, (low, high) in way.near.ranges.items()
            )
            lines.append(
                f"~ {way.title}: within {way.near.tolerance:g} nats of the optimum: {spans}; from "
                f"{format_power(way.near.cheapest_flops)} FLOPs"
            )
            lines += [
                f"~   {shape['layers']:.0f} layers, {format_number(shape['params'])} teacher on "
                f"{format_number(shape['tokens'])} tokens: loss {shape['loss']:.4f}"
                for shape in way.near.ladder[:3]
            ]
    return lines


def _scenario_names(plan: Plan) -> list[str]:
    """Return what to type for the scenarios of a plan, in one sentence or none."""
    named = [f"{way.name} ({way.title})" for way in plan.distillations if way.name in SCENARIOS]
    return [f"Scenarios: {', '.join(named)}."] if named else []


def effect(plan: Plan) -> list[str]:
    """Return the effect of assumed numbers of the FLOP accounting, which stands beside the verdict."""
    return [plan.accounting.effect] if plan.accounting and plan.accounting.effect else []


def _decisions(way: Distillation) -> str:
    """Return the 90 % intervals of the decisions, in words."""
    known = [name for name in DECIDED if name in way.ranges]
    spans = {name: tuple(map(format_number, way.ranges[name])) for name in known}
    texts = [
        f"{name.replace('_', ' ')} {low} to {high}" for name, (low, high) in spans.items() if low != high
    ]
    return f"90 % intervals of the decisions: {', '.join(texts)}" if texts else ""


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table with aligned columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in [header, rule, *rows]
    ]


def folded_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return the lines of a table; where it is too wide, of several, each with the first column."""
    widths = [max(map(len, column)) + 2 for column in zip(header, *rows, strict=True)]
    parts: list[list[int]] = [[0]]
    for k in range(1, len(header)):
        if len(parts[-1]) > 1 and sum(widths[each] for each in (*parts[-1], k)) - 2 > width:
            parts.append([0])
        parts[-1].append(k)
    tables = [
        text_table([header[k] for k in part], [[row[k] for k in part] for row in rows]) for part in parts
    ]
    return [line for table in tables for line in ("", *table)][1:]


def wrap_sentences(text: str, width: int) -> str:
    """Return a report with its sentences in lines of at most ``width`` columns, and its tables as they are.

    >>> print(wrap_sentences("  residual rms 0.1035 nats, estimated noise 1.37 %", 32))
      residual rms 0.1035 nats,
        estimated noise 1.37 %
    """
    lines = []
    for line in text.splitlines():
        table = re.search(r"\S  +\S", line)
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        lines += [line] if table or not line else wrapped([line], width, indent)
    return "\n".join(lines) + "\n" * text.endswith("\n")


def wrapped(lines: Iterable[str], width: int, indent: str = "") -> list[str]:
    """Return lines of at most ``width`` columns; those that go on are indented, notes always."""
    return [
        part
        for line in lines
        for part in textwrap.wrap(
            line,
            width,
            subsequent_indent="  " if line.startswith(("! ", "- ", "~ ")) else indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def plan_text(plan: Plan, hardware: Hardware | None = None, extra: Sequence[str] = ()) -> str:
    """Return the verdict, one table, then warnings and assumptions."""
    units = "loss and gain in nats/token; compute: student training / teacher logits / teacher training"
    ways: list[Way] = [*plan.direct, *plan.distillations]
    serves = any(way.serving_flops for way in ways)
    units += " / serving." if serves else "."
    if _other_laws(plan):
        units += f" Also the loss under {', '.join(_other_laws(plan))}."
    lines = [
        plan.headline,
        *effect(plan),
        "",
        asked(plan),
        "",
        *text_table(*plan_table(plan, hardware)),
        "",
        units,
        *notes(plan),
    ]
    if hardware is not None:
        lines.append(f"- {hardware.describe()}")
    return "\n".join([*lines, *extra]) + "\n"


def plan_html(plan: Plan) -> str:
    """Return the plan as HTML for a notebook."""
    return html_answer(plan.headline, [*effect(plan), asked(plan)], plan_table(plan), notes(plan))


def calibration_text(calibration: Calibration) -> str:
    """Return laws with their uncertainty, residuals, region and provenance as text."""
    provenance = calibration.provenance
    lines = [calibration.name, provenance.source, ""]
    lines += text_table(["law", "coefficient", "value", "sd"], _coefficient_rows(calibration))
    lines += ["", "fitted region:"]
    for field in fields(calibration.region):
        known = getattr(calibration.region, field.name)
        if isinstance(known, tuple):
            lines.append(
                f"  {field.name.replace('_', ' ')}: {format_number(known[0])} to {format_number(known[1])}"
            )
    lines += [f"  {kind} runs: {count}" for kind, count in calibration.region.runs.items()]
    lines.append(str(accounting(calibration.architecture, calibration.architecture)))
    lines += [f"residual sd, {law}: {sd:.4f} nats/token" for law, sd in calibration.residual_sd.items()]
    lines += [misfit.describe(law) for law, misfit in calibration.misfit.items()]
    lines += [] if calibration.misfit else ["misfit: not measured; intervals rest on the residual sd"]
    lines += [
        f"weight of {law} by held-out runs: {weight:.2f}" for law, weight in calibration.law_weights.items()
    ]
    lines += [str(calibration.repetition)] if calibration.repetition else []
    lines += [f"! {warning}" for warning in provenance.warnings]
    lines += [f"- {note}" for note in provenance.notes]
    made = [f"date {provenance.date}", f"made by {provenance.command}" if provenance.command else ""]
    lines.append(f"- {', '.join(text for text in made if text)}")
    return "\n".join(lines) + "\n"


def _coefficient_rows(calibration: Calibration) -> list[list[str]]:
    rows = []
    laws: dict[str, AnySupervisedLaw | DistillationLaw] = {SUPERVISED: calibration.supervised}
    for kind, law in (laws | dict(calibration.distillation)).items():
        title = f"{kind} (default)" if kind == calibration.default else kind
        for name, value in coefficients(law).items():
            spread = f"{calibration.draws[kind][name].std():.2g}" if calibration.draws else ""
            rows.append([title, name, f"{float(value):.6g}", spread])
    return rows
