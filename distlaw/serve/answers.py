"""Answers to requests: the planner's own, with table and notes as a person reads them.

An answer is a pure function of its request, calibration included, so no user's upload can reach another's.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from distlaw.commands.planner.compare import NOTE, compared, findings
from distlaw.commands.planner.compare import comparison_table as compared_table
from distlaw.commands.planner.plan_bill import billed
from distlaw.commands.planner.teachers import teacher_notes
from distlaw.serve import equivalents
from distlaw.serve.requests import (
    Asked,
    CompareRequest,
    FrontierRequest,
    MapRequest,
    PlanRequest,
    PredictRequest,
    budget_span,
    fitted_by,
    span,
)
from scaling.calibration.calibration import Calibration
from scaling.calibration.region import TOO_FAR
from scaling.costs.budget import Budget, parse_budget
from scaling.frontiers.frontier import Frontier, Track, frontier
from scaling.frontiers.search import Unpaid
from scaling.planner.plan import Plan
from scaling.planner.planner import plan
from scaling.planner.prediction import Prediction, predict
from scaling.planner.question import Question
from scaling.reports.logit_storage_text import logit_storage_lines
from scaling.reports.plan_text import asked, calibration_text, effect, notes, plan_table

MAP_DRAWS = 50
"""Draws behind the probabilities of a map."""
Row = dict[str, float | str | None]


class Table(BaseModel):
    """Rounded for a person."""

    header: list[str]
    rows: list[list[str]]


class Equivalent(BaseModel):
    """Command and Python code that ask the same question."""

    command: str
    python: str


class PlanAnswer(BaseModel):
    """A plan; ``rows`` and ``plan`` hold numbers in full."""

    headline: str
    asked: str
    table: Table
    notes: list[str]
    rows: list[Row]
    bills: list[Row]
    spending: Row | None
    """The budget in FLOPs, device hours and dollars, where a device counts it."""
    plan: Plan
    equivalent: Equivalent


class PredictAnswer(BaseModel):
    """Losses at a point, nats/token."""

    headline: str
    asked: str
    table: Table
    notes: list[str]
    rows: list[Row]
    prediction: Prediction
    equivalent: Equivalent


class CompareAnswer(BaseModel):
    """One question under every law of several calibrations."""

    headline: str
    asked: str
    table: Table
    notes: list[str]
    rows: list[Row]
    spending: Row | None
    """The budget in FLOPs, device hours and dollars, where a device counts it."""
    equivalent: Equivalent


class FrontierAnswer(BaseModel):
    """The best losses over a range of budgets."""

    headline: str
    asked: str
    findings: list[str]
    table: Table
    notes: list[str]
    rows: list[Row]
    spending: list[Row] | None
    """The two ends of the range, likewise."""
    frontier: Frontier
    equivalent: Equivalent


class MapAnswer(BaseModel):
    """Distilling against direct training; rows of each grid are student sizes, columns budgets."""

    scenario: str
    budgets: list[float]
    student_params: list[float]
    gain: list[list[float | None]]
    """nats/token; ``null`` where the budget does not pay for the student."""
    probability: list[list[float | None]] | None
    """Probability that distilling ends below direct training."""
    answered: list[list[bool]]
    """True where a verdict can be given."""
    why: list[list[str]]
    """Reason why none can be given: ``unpaid`` (the budget is too small), ``far`` (from the fitted runs),
    ``not credible`` (below the loss of unlimited data), ``teacher too good`` (better than any that the law
    fitted to); empty where one can."""
    laws: list[list[str]]
    """Laws behind the probabilities of a student's size: all that hold there, or the one asked for."""


class CalibrationSummary(BaseModel):
    """Summary of a calibration."""

    name: str
    source: str
    laws: list[str]
    default: str | None
    draws: int
    runs: dict[str, int]
    warnings: list[str]
    region: dict[str, tuple[float, float]]
    """Smallest and largest value of each variable in the runs."""
    budgets: tuple[float, float] | None
    """FLOPs of training the cheapest and the dearest model of that region."""
    losses: tuple[float, float] | None
    """The irreducible loss, and that of the smallest model on the fewest tokens; nats/token."""
    text: str
    """Coefficients, region and provenance, for a person."""


def answer_plan(request: PlanRequest) -> dict[str, Any]:
    """Answer as :func:`scaling.plan` does, with a :class:`PlanAnswer`."""
    fitted = calibrated(request)
    device, spending = request.hardware(), request.spending()
    question = request.asked(fitted)
    found = plan(question, fitted)
    taught = teacher_notes(request.named_teachers(), request.teacher_vocab())
    stored = logit_storage_lines(found, question, fitted, request.store_logits, "store_logits")
    return {
        "headline": found.headline,
        "asked": asked(found),
        "table": _table(*plan_table(found, device)),
        "notes": [
            *(f"! {text}" for text in effect(found)),
            *(*notes(found), *taught, *budget_notes(spending), *stored),
        ],
        "rows": found.rows(),
        "bills": billed(found, device) if device else [],
        "spending": _counted(spending),
        "plan": found.to_dict(),
        "equivalent": equivalents.of_plan(request),
    }


def _counted(spending: Budget | None) -> Row | None:
    """Return a budget in all three units, where a device counts it."""
    return spending.to_dict() if spending and spending.hardware else None


def budget_notes(spending: Budget | None) -> list[str]:
    """Return a note on a budget in all three units, where a device counts it."""
    return [f"- budget: {spending.describe()}"] if spending and spending.hardware else []


def answer_predict(request: PredictRequest) -> dict[str, Any]:
    """Answer as :func:`scaling.predict` does, with a :class:`PredictAnswer`."""
    fitted = calibrated(request)
    found = predict(
        fitted,
        student_params=request.student_params,
        student_tokens=request.student_tokens,
        teacher_loss=request.teacher_loss,
        teacher_params=request.teacher_params,
        teacher_tokens=request.teacher_tokens,
    )
    alone, taught = found.losses["supervised"], found.losses.get(fitted.default or "")
    headline = f"Alone the student reaches {alone} nats/token"
    headline += f"; with this teacher {taught}, under the {fitted.default} law." if taught else "."
    rows = [
        {"what": name, "loss_nats": loss.value, "loss_low": loss.low, "loss_high": loss.high}
        for name, loss in found.losses.items()
    ]
    return {
        "headline": headline,
        "asked": found.asked,
        "table": _table(*found.table()),
        "notes": [f"! {warning}" for warning in found.warnings],
        "rows": rows,
        "prediction": found.to_dict(),
        "equivalent": equivalents.of_predict(request),
    }


def answer_compare(request: CompareRequest) -> dict[str, Any]:
    """Answer as ``distlaw compare`` does, with a :class:`CompareAnswer`."""
    spending = parse_budget(request.budget, "budget")
    question = Question(
        student_params=request.student_params,  # type: ignore[arg-type]
        budget=spending.flops,
        scenarios=tuple(request.scenarios),  # type: ignore[arg-type]
    )
    rows, warnings = compared(question, [fitted_by(each) for each in request.calibrations])
    return {
        "headline": " ".join(findings(rows)),
        "asked": f"{question.describe()}.",
        "table": _table(*compared_table(rows)),
        "notes": [*(f"! {text}" for text in warnings), *budget_notes(spending), f"- {NOTE}"],
        "rows": rows,
        "spending": _counted(spending),
        "equivalent": equivalents.of_compare(request),
    }


def answer_frontier(request: FrontierRequest) -> dict[str, Any]:
    """Answer as :func:`scaling.frontier` does, with a :class:`FrontierAnswer`."""
    fitted = calibrated(request)
    ends = budget_span(request.budgets, "budgets")
    low, high = (end.flops for end in ends)
    budgets = list(np.geomspace(low, high, request.points))
    found = frontier(request.question(fitted, budget=high), budgets, fitted)
    return {
        "headline": found.headline,
        "asked": found.asked,
        "findings": list(found.findings),
        "table": _table(*found.table()),
        "notes": found.notes(),
        "rows": found.rows(),
        "spending": [end.to_dict() for end in ends] if all(end.hardware for end in ends) else None,
        "frontier": found.to_dict(),
        "equivalent": equivalents.of_frontier(request),
    }


def answer_map(request: MapRequest) -> dict[str, Any]:
    """A frontier per student size; a :class:`MapAnswer`."""
    fitted = calibrated(request)
    if request.uncertainty:
        fitted = thinned(fitted, MAP_DRAWS)
    budgets = np.geomspace(*span(request.budgets, "budgets", "FLOPs"), request.columns).tolist()
    sizes = np.geomspace(*span(request.students, "students", "params"), request.rows).tolist()
    first = request.scenarios[:1]
    lines = [_line(request, fitted, size, first, budgets) for size in sizes]
    cells = [_cells(line, budgets) for line in lines]
    drawn = any(track.probability for line in lines if line for track in line.tracks.values())
    return {
        "scenario": first[0],
        "budgets": budgets,
        "student_params": sizes,
        "gain": [[cell.gain for cell in row] for row in cells],
        "probability": [[cell.probability for cell in row] for row in cells] if drawn else None,
        "answered": [[not cell.why for cell in row] for row in cells],
        "why": [[cell.why for cell in row] for row in cells],
        "laws": [_heard(fitted, request.law, size) for size in sizes],
    }


def _line(
    request: MapRequest, fitted: Calibration, size: float, scenarios: list[str], budgets: list[float]
) -> Frontier | None:
    """A row of the map; ``None`` where no two budgets pay for a student of this size."""
    changes = {"student_params": size, "scenarios": scenarios}
    question = request.model_copy(update=changes).question(fitted, budget=budgets[-1])
    try:
        return frontier(question, budgets, fitted)
    except Unpaid:
        return None


class _Cell(NamedTuple):
    gain: float | None = None
    probability: float | None = None
    why: str = "unpaid"


def _cells(line: Frontier | None, budgets: list[float]) -> list[_Cell]:
    """A row of the map, budget by budget."""
    if line is None or not line.tracks:
        return [_Cell()] * len(budgets)
    (track,) = line.tracks.values()
    found = {}
    for k, budget in enumerate(line.budgets):
        chance = None if track.probability is None else track.probability[k]
        found[budget] = _Cell(track.gain[k].value, chance, _why(line, track, k))
    return [found.get(budget, _Cell()) for budget in budgets]


def _why(line: Frontier, track: Track, k: int) -> str:
    """Return the reason why no verdict can be given at this budget; empty where one can."""
    if line.outside[k] > TOO_FAR:
        return "far"
    absurd = any(low <= line.budgets[k] <= high for low, high in track.incredible)
    if absurd:
        return "not credible"
    refused = any(low <= line.budgets[k] <= high for low, high in track.refused)
    return "teacher too good" if refused else ""


def _heard(fitted: Calibration, asked: str | None, size: float) -> list[str]:
    return [asked] if asked else list(fitted.votes(student_params=size))


def calibration_summary(fitted: Calibration) -> dict[str, Any]:
    """A :class:`CalibrationSummary`."""
    return {
        "name": fitted.name,
        "source": fitted.provenance.source,
        "laws": list(fitted.distillation),
        "default": fitted.default,
        "draws": fitted.draw_count,
        "runs": dict(fitted.region.runs),
        "warnings": list(fitted.provenance.warnings),
        **_covered(fitted),
        "text": calibration_text(fitted),
    }


def _covered(fitted: Calibration) -> dict[str, Any]:
    """Return the ranges of the runs: variables, budgets, losses."""
    region = fitted.region
    ranges = {name: value for name, value in asdict(region).items() if isinstance(value, tuple)}
    params, tokens = region.params or region.student_params, region.tokens or region.student_tokens
    if params is None or tokens is None:
        return {"region": ranges, "budgets": None, "losses": None}
    flops = fitted.architecture.training_flops(np.array(params), np.array(tokens))
    losses = float(fitted.supervised.E), float(fitted.supervised.loss(params[0], tokens[0]))
    return {"region": ranges, "budgets": tuple(map(float, flops)), "losses": losses}


def check_upload(content: dict[str, Any]) -> dict[str, Any]:
    """Check a calibration's file and summarize it; nothing is kept."""
    return calibration_summary(fitted_by(content))


def calibrated(request: Asked) -> Calibration:
    """Return the calibration that answers, without draws and residual spread for questions about points."""
    fitted = fitted_by(request.calibration)
    if request.uncertainty:
        return fitted
    return _points(fitted.name) if isinstance(request.calibration, str) else _certain(fitted)


def thinned(fitted: Calibration, most: int) -> Calibration:
    """Return a calibration with at most so many of its draws."""
    every = slice(None, None, -(-max(1, fitted.draw_count) // most))
    draws = {
        law: {name: values[every] for name, values in columns.items()}
        for law, columns in fitted.draws.items()
    }
    return replace(fitted, draws=draws)


@lru_cache
def _points(name: str) -> Calibration:
    return _certain(fitted_by(name))


def _certain(fitted: Calibration) -> Calibration:
    """A residual spread without the draws would look like all of the uncertainty, so both go."""
    return replace(fitted, draws={}, residual_sd={}, misfit={})


def _table(header: list[str], rows: list[list[str]]) -> dict[str, Any]:
    return {"header": header, "rows": rows}
