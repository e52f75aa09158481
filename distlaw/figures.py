"""Figures of the planner; loads matplotlib."""

from __future__ import annotations

from pathlib import Path

from scaling.errors import InputError
from scaling.frontier import Frontier
from scaling.plans import FAR, Estimate
from scaling.scenarios import DESCRIPTIONS
from scaling.units import format_number

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's palette, safe for colour-blind readers."""


def draw_frontier(frontier: Frontier, path: Path) -> None:
    """Loss over compute for direct training and every scenario, with 90 % bands and crossovers."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
    try:
        _curve(axes, frontier.budgets, frontier.direct, "black", "direct training", "--")
        for colour, (name, track) in zip(COLOURS, frontier.tracks.items(), strict=False):
            _curve(axes, frontier.budgets, track.loss, colour, DESCRIPTIONS.get(name, name), "-")
            for crossing in (track.crossover, track.overtaking):
                if crossing.at is not None:
                    axes.axvline(crossing.at.value, color=colour, linewidth=0.8, linestyle=":")
        beyond = [
            budget for budget, factor in zip(frontier.budgets, frontier.outside, strict=True) if factor > FAR
        ]
        if beyond:
            axes.axvspan(beyond[0], beyond[-1], color="0.93", zorder=-1, label="beyond the fitted runs")
        axes.set_xscale("log")
        axes.set_xlabel("compute (FLOPs)")
        axes.set_ylabel("held-out cross-entropy (nats/token)")
        axes.set_title(f"{_student(frontier)}, {frontier.calibration}, {frontier.law}")
        axes.legend(frameon=False)
        try:
            figure.savefig(path, dpi=150)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot write the figure: {error}") from None
    finally:
        plt.close(figure)


def _student(frontier: Frontier) -> str:
    sizes = {size for track in frontier.tracks.values() for size in track.student_params}
    return f"{format_number(sizes.pop())} student" if len(sizes) == 1 else "students of the best size"


def _curve(
    axes: object,
    budgets: tuple[float, ...],
    losses: tuple[Estimate, ...],
    colour: str,
    label: str,
    style: str,
) -> None:
    axes.plot(budgets, [loss.value for loss in losses], style, color=colour, label=label)  # type: ignore[attr-defined]
    low = [loss.value if loss.low is None else loss.low for loss in losses]
    high = [loss.value if loss.high is None else loss.high for loss in losses]
    axes.fill_between(budgets, low, high, color=colour, alpha=0.15, linewidth=0)  # type: ignore[attr-defined]
