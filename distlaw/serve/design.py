"""Answer with the design of a sweep: runs, and what they are expected to show over money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from distlaw.serve import equivalents
from distlaw.serve.answers import Equivalent, Row, Table, budget_notes
from distlaw.serve.requests import DesignRequest, fitted_by
from scaling.costs.budget import parse_budget
from scaling.costs.flops_assumptions import assumed_architecture
from scaling.planner.question import Question
from scaling.units import format_power

if TYPE_CHECKING:
    from fits.design.sweep_design import DesignPoint, SweepDesign


class DesignAnswer(BaseModel):
    """A design; ``rows`` and ``design`` hold numbers in full."""

    headline: str
    asked: str
    table: Table
    notes: list[str]
    rows: list[Row]
    design: dict[str, Any]
    """Runs in their order, and points of ``curve`` (after each run) and ``factorial``: ``flops``, ``runs``,
    ``sd`` of ln loss at the question, ``regret`` in nats/token, ``probability`` of the right decision."""
    equivalent: Equivalent


def answer_design(request: DesignRequest) -> dict[str, Any]:
    """Answer as ``distlaw design`` does, with a :class:`DesignAnswer`."""
    from fits.design.sweep_design import design_for  # loads pandas, which no other answer needs
    from fits.estimation.laws.sibling import Sibling

    budget, spend = (parse_budget(getattr(request, name), name) for name in ("budget", "spend"))
    numbers = {name: getattr(request, name) for name in ("context", "vocab", "aspect_ratio")}
    question = Question(
        student_params=request.student_params,  # type: ignore[arg-type]
        budget=budget.flops,
        scenarios=tuple(request.scenarios),  # type: ignore[arg-type]
    )
    found = design_for(
        [question],
        spend.flops,
        architecture=assumed_architecture(**numbers),
        sibling=None if request.prior is None else Sibling.of(fitted_by(request.prior)),
    )
    return {
        "headline": f"{found.headline[:1].upper()}{found.headline[1:]}.",
        "asked": f"{question.describe()}, by a sweep of {spend.describe()}. Prior: {found.prior}.",
        "table": {"header": HEADER, "rows": _table(found)},
        "notes": [*_notes(found), *budget_notes(budget)],
        "rows": _rows(found),
        "design": found.to_dict(),
        "equivalent": equivalents.of_design(request),
    }


HEADER = ["sweep", "FLOPs", "runs", "error", "regret", "P(right)"]


def _table(found: SweepDesign) -> list[list[str]]:
    chosen = ["before any run", *(f"+ {found.runs[point.runs - 1]}" for point in found.curve[1:])]
    named = [*zip(chosen, found.curve, strict=True), *(("factorial grid", each) for each in found.factorial)]
    return [[name, *_cells(point)] for name, point in named]


def _cells(point: DesignPoint) -> list[str]:
    return [
        format_power(point.flops) if point.flops else "0",
        str(point.runs),
        f"{100 * point.sd:.2g} %",
        f"{point.regret:.4f}",
        f"{point.probability:.2f}",
    ]


def _rows(found: SweepDesign) -> list[dict[str, float | str | None]]:
    lines = {"chosen": found.curve, "factorial": found.factorial}
    return [
        {
            "sweep": name,
            "flops": point.flops,
            "runs": float(point.runs),
            "sd": point.sd,
            "regret": point.regret,
            "probability": point.probability,
        }
        for name, points in lines.items()
        for point in points
    ]


def _notes(found: SweepDesign) -> list[str]:
    """Return warnings as other answers mark them, and what a reader should know of all designs."""
    told = [note if note.startswith("!") else f"- {note}" for note in found.notes]
    return [
        *told,
        "- error, regret and P(right) are expected under the law and the priors, before any run; if the law "
        "does not hold, they are too good",
        "- candidates are a ladder of sizes below the student, on 5, 20 and 80 tokens per parameter; for "
        "runs of your own, distlaw design --spec",
    ]
