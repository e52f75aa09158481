"""``distlaw plan --private-teachers``: tokens that shards release at an epsilon, and whether they pay."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from shutil import get_terminal_size
from typing import Annotated, Any, NamedTuple

import typer

from distlaw.options import refuse, write_csv, write_json
from scaling.calibration.calibration import DEFAULT_CALIBRATION
from scaling.errors import InputError

PRIVATE = "Private text"
"""Group of options in help."""
PrivateTeachers = Annotated[
    str,
    typer.Option(
        "--private-teachers",
        metavar="N",
        help="Teachers on shards of a private text, which release tokens by vote; needs --epsilon.",
        rich_help_panel=PRIVATE,
    ),
]
Epsilon = Annotated[
    str,
    typer.Option("--epsilon", metavar="NUMBER", help="Privacy budget of the text.", rich_help_panel=PRIVATE),
]
Delta = Annotated[
    str,
    typer.Option(
        "--delta",
        metavar="NUMBER",
        help="Probability that the promise fails, at most 1/N; 1e-5 if not given.",
        rich_help_panel=PRIVATE,
    ),
]


class PrivateAsked(NamedTuple):
    """Options of a plan of private text, as they were typed."""

    teachers: str
    epsilon: str
    delta: str
    student: str
    calibration: str


def print_private_plan(
    asked: PrivateAsked, others: Mapping[str, Any], *, as_json: bool, as_csv: bool
) -> None:
    """Print the plan, in words, as JSON or as CSV.

    Args:
        asked: Options of the plan.
        others: Options that do not go with it.
        as_json: Print JSON.
        as_csv: Print one row a way as CSV.

    Raises:
        InputError: For options that do not go together, and budgets that promise nothing.
    """
    from scaling.private.law import DEFAULT_LAW
    from scaling.private.plan import plan_private

    if not (asked.teachers and asked.epsilon):
        raise InputError(
            "private text needs a number of teachers and a budget: --private-teachers 1000 --epsilon 8"
        )
    refuse(others, "does not go with --private-teachers: its law knows budgets of privacy, sizes and no more")
    refuse({"--csv": as_csv and as_json}, "goes without --json")
    answer = plan_private(
        asked.teachers,
        asked.epsilon,
        delta=asked.delta or 1e-5,
        student_params=asked.student or None,
        law=DEFAULT_LAW if asked.calibration == DEFAULT_CALIBRATION else asked.calibration,
    )
    if as_json:
        write_json(answer.to_dict())
    elif as_csv:
        write_csv(answer.rows())
    else:
        sys.stdout.write(answer.text(get_terminal_size().columns) + "\n")
