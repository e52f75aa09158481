"""Busbridge et al. 2025 (arXiv 2502.08606): their figures' settings, to draw them from any calibration.

Sizes, tokens and compute are the paper's; a figure here shows the same variables, in a style of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scaling.costs.scenarios import BEST_CASE, BOTH, INFERENCE, PRETRAINING, SCENARIOS
from scaling.errors import InputError
from scaling.figures.chart import Chart
from scaling.figures.registry import FigureOptions, chart

ISOFLOPS = (3e19, 1e20, 3e20, 1e21)
TEACHERS = (546e6, 975e6, 1.82e9, 2.72e9, 4.82e9, 7.75e9)
STUDENTS = (198e6, 546e6, 975e6, 1.82e9)
LARGE = (1e9, 3e9, 1e10, 3e10)
TOKENS = (250e9, 1e12, 4e12, 16e12)
LOSSES = (1.3, 2.6)
BUDGETS = (1e20, 1e26)
FOUR = (3e8, 1e9, 3e9, 1e10)
_WIDE: dict[str, Any] = {"students": (3e8, 5e10), "budgets": BUDGETS}
_EIGHT: dict[str, Any] = {"students": (3e8, 5e8, 1e9, 3e9, 5e9, 1e10, 3e10, 5e10), "budgets": BUDGETS}

FIGURES: dict[int, tuple[str, dict[str, Any]]] = {
    1: ("teacher-loss", {"students": (143e6, *STUDENTS), "ratios": (25.0, 50.0, 100.0, 200.0)}),
    2: ("student-isoflop", {"students": (143e6, 7.75e9), "teachers": TEACHERS, "budgets": ISOFLOPS}),
    3: ("teacher-isoflop", {"students": STUDENTS, "teachers": (143e6, 12.6e9), "budgets": ISOFLOPS}),
    4: ("capacity-gap", {"students": (143e6, 198e6, 546e6, 975e6, 1.82e9), "teachers": (198e6, 12.6e9)}),
    6: ("gain", {"students": (1e8, 7e9), "teachers": TEACHERS, "tokens": (1e9, 1e13)}),
    7: ("best-teacher-by-size", {"students": (1e8, 1e11), "tokens": TOKENS, "teacher_losses": LOSSES}),
    8: ("scenarios", {"students": FOUR, "budgets": BUDGETS}),
    9: ("decisions", {"students": FOUR, "budgets": BUDGETS, "scenarios": (BOTH,)}),
    13: ("gain-by-teacher", {"students": STUDENTS, "teachers": (1e8, 7e9), "budgets": (1e19, 1e22)}),
    14: ("gain-by-compute", {"students": (1e8, 7e9), "teachers": TEACHERS, "budgets": (1e19, 1e22)}),
    15: ("best-teacher-by-tokens", {"students": LARGE, "tokens": (250e9, 16e12), "teacher_losses": LOSSES}),
    16: (
        "teacher-at-a-price",
        {
            "students": LARGE,
            "teachers": (1e9, 1e12),
            "teacher_losses": LOSSES,
            "budgets": (1e21, 1e22, 1e23, 1e24),
        },
    ),
    17: ("scenarios", _EIGHT),
    18: ("best-teacher-loss", _EIGHT),
    19: ("map", {**_WIDE, "scenarios": (BEST_CASE,)}),
    20: ("decisions", {**_EIGHT, "scenarios": (BEST_CASE,)}),
    21: ("map", {**_WIDE, "scenarios": (INFERENCE,)}),
    22: ("decisions", {**_EIGHT, "scenarios": (INFERENCE,)}),
    23: ("shares", {**_EIGHT, "scenarios": (INFERENCE,)}),
    24: ("map", {**_WIDE, "scenarios": (PRETRAINING,)}),
    25: ("decisions", {**_EIGHT, "scenarios": (PRETRAINING,)}),
    26: ("shares", {**_EIGHT, "scenarios": (PRETRAINING,)}),
    27: ("map", {**_WIDE, "scenarios": (BOTH,)}),
    28: ("decisions", {**_EIGHT, "scenarios": (BOTH,)}),
    29: ("shares", {**_EIGHT, "scenarios": (BOTH,)}),
    30: ("best-student-tokens", _EIGHT),
    31: ("best-teacher-tokens", _EIGHT),
    32: ("best-teacher-size", _EIGHT),
    33: ("savings", {**_EIGHT, "budgets": (1e18, 1e26), "scenarios": tuple(SCENARIOS.values())}),
    34: ("savings", {**_EIGHT, "budgets": (1e18, 1e26), "scenarios": tuple(SCENARIOS.values())}),
}
"""Kind and settings of each figure, by its number.

Of 13 it is (b); 33 and 34 are the two rows of one figure. 5 holds runs that are not published, 10 to 12 are
of other models.
"""


def figure(number: int, opts: FigureOptions) -> Chart:
    """Return the figure of this number, with what is ``opts`` in place of the paper's settings.

    Raises:
        InputError: for a number that is not there.
    """
    if number not in FIGURES:
        known = ", ".join(map(str, FIGURES))
        raise InputError(f"no figure {number} of the paper; there are {known}, and others by kind")
    kind, settings = FIGURES[number]
    own = {name: value for name, value in settings.items() if not getattr(opts, name)}
    return chart(kind, replace(opts, **own))
