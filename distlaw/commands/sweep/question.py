"""Options of commands that choose runs for a question, and how a question is read."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.errors import InputError

if TYPE_CHECKING:
    from fits.estimation.laws.sibling import Sibling
    from scaling.planner.question import Question

QuestionFile = Annotated[
    Path | None,
    typer.Option(
        "--question",
        metavar="FILE",
        help="YAML or JSON: student_params, budget (one or a list each), scenarios, teachers, ...",
    ),
]
Student = Annotated[
    str, typer.Option(metavar="SIZES", help="Student's parameters: 300M, or several, 100M,300M.")
]
Budgets = Annotated[
    str, typer.Option("--budget", metavar="FLOPS", help="Budget that is decided about: 1e21, or several.")
]
ScenarioNames = Annotated[
    list[str] | None,
    typer.Option(
        "--scenario", metavar="NAME", help="Costs of the teacher that count; repeat. All if not given."
    ),
]
SpendOption = Annotated[
    str, typer.Option("--spend", metavar="FLOPS", help="FLOPs that the runs may cost: 1e20, 10 h100-hours.")
]
Prior = Annotated[
    str,
    typer.Option(
        metavar="CALIBRATION",
        help="Law of another corpus on the same code, block and ladder: a calibration's file, or permissive.",
    ),
]
RegretOption = Annotated[
    str, typer.Option(metavar="NATS", help="Expected regret, nats/token, at which to stop.")
]
LISTED = ("student_params", "budget")


def read_questions(
    file: Path | None, student: str, budget: str, scenarios: list[str] | None
) -> list[Question]:
    """Return the questions of a file, or of options: one for each student and budget.

    Raises:
        InputError: for both or neither, an unknown field, or a value that cannot be read.
    """
    from scaling.units import split_list

    if file is not None and (student or budget):
        raise InputError("--question holds student and budget: give a file, or --student and --budget")
    if file is None and not budget:
        raise InputError("say what is to be decided: --student 300M --budget 1e21, or --question FILE")
    if file is not None:
        fields = _read(file)
    else:
        fields = {
            "budget": split_list(budget, "--budget"),
            **({"student_params": split_list(student, "--student")} if student else {}),
        }
    if scenarios:
        fields["scenarios"] = scenarios
    return _questions(fields, str(file) if file else "the question")


def read_spend(text: str, what: str = "--spend") -> float:
    """Return FLOPs that may be spent; infinite if not given."""
    from scaling.costs.budget import parse_budget

    return parse_budget(text, what).flops if text else float("inf")


def read_sibling(name: str) -> Sibling | None:
    """Return the sibling of ``--prior``, if any."""
    from fits.estimation.laws.sibling import Sibling

    return Sibling.of(name) if name else None


def _read(file: Path) -> dict[str, Any]:
    from sweeps.spec.parsing.yaml_text import read_yaml

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--question {file}: cannot be read ({error})") from None
    content = read_yaml(text, str(file))
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected fields such as student_params and budget, found {content!r:.40}")
    return dict(content)


def _questions(fields: dict[str, Any], where: str) -> list[Question]:
    from dataclasses import fields as fields_of

    from scaling.planner.question import Question

    known = [
        field.name
        for field in fields_of(Question)
        if field.name not in ("architecture", "law", "family", "weights")
    ]
    for name in fields:
        if name not in known:
            raise InputError(f"{where}: unknown field {name!r}; a question has {', '.join(known)}")
    fields["teachers"] = tuple(_teachers(fields.get("teachers") or (), where))
    several = {name: _listed(fields.pop(name, None)) for name in LISTED}
    for name, values in several.items():
        if not values:
            raise InputError(f"{where}: {name} is an empty list; give a value, or several")
    try:
        return [
            Question(**fields, student_params=student, budget=budget)
            for student in several["student_params"]
            for budget in several["budget"]
        ]
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except TypeError as error:
        raise InputError(f"{where}: a field has a value of the wrong kind ({error})") from None


def _teachers(given: Any, where: str) -> Iterator[Any]:
    """Yield teachers as a question takes them: names as they are, mappings read as rows of a catalogue."""
    from scaling.planner.teacher_catalogue import parse_catalogue

    if not isinstance(given, list | tuple):
        raise InputError(f"{where}: teachers: expected a list of names or of fields, found {given!r:.40}")
    for each in given:
        if not isinstance(each, dict):
            yield str(each)
            continue
        rows = StringIO()
        writer = csv.DictWriter(rows, list(each))
        writer.writeheader()
        writer.writerow(each)
        yield from parse_catalogue(rows.getvalue(), f"{where}: teachers")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
