"""Figures of calibrations and plans: data as charts (pure NumPy), then drawing (loads matplotlib).

    from scaling import Calibration
    from scaling.figures import draw

    draw("capacity-gap", Calibration.load("busbridge2025-figure1-runs"), students=(143e6, 546e6))

Read ``chart.py`` (contents of a figure), ``registry.py`` (the kinds of figures), then ``slices.py``,
``optima.py`` and ``frontier.py`` (their data) and ``render.py`` (drawing).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.calibration.calibration import DEFAULT_CALIBRATION, Calibration, as_calibration

if TYPE_CHECKING:
    from scaling.figures.figure import Figure

__all__ = ["draw"]


def draw(
    kind: str | int,
    calibration: Calibration | str | Path = DEFAULT_CALIBRATION,
    *,
    dark: bool = False,
    **options: Any,
) -> Figure:
    """Draw a figure of a kind of :data:`scaling.figures.registry.KINDS`, or by its number in the paper.

    ``options`` are fields of :class:`scaling.figures.registry.FigureOptions`: students, teachers, tokens,
    ratios, budgets, scenarios, law.

    Raises:
        InputError: For an unknown kind or number, or for settings it does not take.
    """
    from scaling.figures import paper, render
    from scaling.figures.registry import FigureOptions, chart

    wanted = FigureOptions(calibration=as_calibration(calibration), **options)
    return render.draw(paper.figure(kind, wanted) if isinstance(kind, int) else chart(kind, wanted), dark)
