"""The optimum over budgets and student sizes: the family behind Figures 9 and 18-34 of Busbridge et al. 2025
(arXiv 2502.08606), for any calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from scaling.calibration import Calibration
from scaling.figures.chart import Array, Chart, Field, Mark, Panel, Series, orders
from scaling.figures.decisions import PARTS, decide, redecided
from scaling.figures.places import near_runs, place
from scaling.figures.sections import BAND, BAND_NOTE, HATCH_NOTE, contour_levels, loss
from scaling.figures.words import AXES, said, scenario_title
from scaling.optimum import Optima
from scaling.scenarios import Scenario

DECIDED = ("student_tokens", "teacher_params", "teacher_tokens", "teacher_loss")
"""What a plan decides, where the student's size is given."""
NEAR = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""nats/token above the optimum that a map of its neighbourhood shows."""


def over_budgets(
    calibration: Calibration,
    scenario: Scenario,
    sizes: Sequence[float],
    budgets: Array,
    law: str | None = None,
) -> Chart:
    """Every decision over compute, a line a student size, with the band of 90 % of the draws' own optima."""
    series: dict[str, list[Series]] = {name: [] for name in (*DECIDED, "loss")}
    for order, size in zip(orders(len(sizes)), sizes, strict=True):
        found = decide(calibration, scenario, np.full(len(budgets), size), budgets, law)
        drawn = None
        if calibration.draw_count:
            each = [redecided(calibration, scenario, size, float(C), law)[0] for C in budgets]
            drawn = Optima(*(np.stack(columns, axis=1) for columns in zip(*each, strict=True)))
        for name, lines in series.items():
            low, high = (None, None) if drawn is None else np.quantile(getattr(drawn, name), BAND, axis=0)
            lines.append(
                Series(
                    label=said("student_params", size), x=budgets, y=getattr(found.optima, name),
                    low=low, high=high, known=found.known, order=order,
                )
            )  # fmt: skip
        series["loss"].append(Series(x=budgets, y=found.direct, order=order, dash="--"))
    return Chart(
        panels=tuple(Panel(x=AXES["budget"], y=AXES[name], series=tuple(series[name])) for name in series),
        title=f"Optimal decisions, {scenario_title(scenario)} ({calibration.name})",
        note=f"dashed: direct training; {BAND_NOTE}",
    )


def shares_over_budgets(
    calibration: Calibration,
    scenario: Scenario,
    sizes: Sequence[float],
    budgets: Array,
    law: str | None = None,
) -> Chart:
    """How the compute is divided at the optimum, a panel a student size, with bands."""
    panels = []
    for size in sizes:
        found = decide(calibration, scenario, np.full(len(budgets), size), budgets, law)
        drawn = None
        if calibration.draw_count:
            drawn = np.stack(
                [redecided(calibration, scenario, size, float(C), law)[1] for C in budgets], axis=1
            )
        lines = []
        for number, part in enumerate(PARTS):
            low, high = (None, None) if drawn is None else np.quantile(drawn[..., number], BAND, axis=0)
            lines.append(
                Series(
                    label=part, x=budgets, y=found.shares[:, number], low=low, high=high,
                    known=found.known, kind=number + 1,
                )
            )  # fmt: skip
        share = replace(AXES["loss"], label="share of the compute", limits=(0.0, 1.0))
        panels.append(
            Panel(title=said("student_params", size), x=AXES["budget"], y=share, series=tuple(lines))
        )
    return Chart(
        panels=tuple(panels),
        title=f"Optimal allocation, {scenario_title(scenario)} ({calibration.name})",
        note=BAND_NOTE,
    )


def over_the_plane(
    calibration: Calibration,
    scenario: Scenario,
    sizes: Array,
    budgets: Array,
    law: str | None = None,
    shown: Sequence[str] = ("loss", "gain", *DECIDED),
) -> Chart:
    """The optimum over compute and student size, a panel a quantity."""
    C, N = np.meshgrid(budgets, sizes)
    found = decide(calibration, scenario, N.ravel(), C.ravel(), law)
    known = found.known.reshape(C.shape)
    panels = []
    for name in shown:
        z = (found.direct - found.optima.loss if name == "gain" else getattr(found.optima, name)).reshape(
            C.shape
        )
        z = np.where(np.isfinite(z), z, np.nan)
        if name != "gain" and np.nanmax(z) < 1.05 * np.nanmin(z):
            continue  # held at a bound everywhere
        size = AXES[name].sizes
        panels.append(
            Panel(
                x=AXES["budget"],
                y=AXES["student_params"],
                field=Field(
                    x=budgets, y=sizes, z=z, label=AXES[name].label,
                    levels=contour_levels(z, diverging=name == "gain", log=size),
                    sizes=size, diverging=name == "gain", known=known,
                ),
            )
        )  # fmt: skip
    return Chart(
        panels=tuple(panels),
        title=f"The optimum, {scenario_title(scenario)} ({calibration.name})",
        note=f"thick line: no gain; {HATCH_NOTE}",
    )


def savings(
    calibration: Calibration,
    scenarios: Sequence[Scenario],
    sizes: Sequence[float],
    budgets: Array,
    law: str | None = None,
) -> Chart:
    """What reaching a loss takes, as a multiple of direct training: compute, and student tokens."""
    panels = []
    for ratio in ("compute_ratio", "tokens_ratio"):
        for scenario in scenarios:
            lines = []
            for order, size in zip(orders(len(sizes)), sizes, strict=True):
                found = decide(calibration, scenario, np.full(len(budgets), size), budgets, law)
                alone = _direct_tokens(calibration, size, found.optima.loss)
                if ratio == "compute_ratio":
                    times = budgets / calibration.architecture.training_flops(size, alone)
                else:
                    times = found.optima.student_tokens / alone
                lines.append(
                    Series(
                        label=said("student_params", size), x=found.optima.loss, y=times, known=found.known,
                        order=order,
                    )
                )  # fmt: skip
            panels.append(
                Panel(
                    title=scenario_title(scenario), x=AXES["loss"],
                    y=replace(AXES[ratio], limits=(0.1, 10.0)), series=tuple(lines),
                    marks=(Mark(at=1.0, across="y"),),
                )
            )  # fmt: skip
    return Chart(
        panels=tuple(panels),
        columns=len(scenarios),
        title=f"What a loss takes, against direct training ({calibration.name})",
        note="thin lines: more than 1.5 times beyond the fitted runs; none: direct training never gets there",
    )


def _direct_tokens(calibration: Calibration, size: float, goal: Array) -> Array:
    """Tokens on which direct training reaches a loss; nan where it never does."""
    s = calibration.supervised
    capacity = np.exp(np.log(s.A) - s.alpha * np.log(size))
    left = np.maximum(goal - s.E, 0.0) ** (1 / s.gamma) - capacity
    return np.asarray((np.where(left > 0, left, np.nan) / s.B) ** (-1 / s.beta))


def near_optimum(
    calibration: Calibration, scenario: Scenario, size: float, budget: float, law: str | None = None
) -> Chart:
    """How much is lost with teachers of other sizes and tokens than the best: the optimum is flat."""
    best = decide(calibration, scenario, np.array([size]), np.array([budget]), law).optima
    N_T = float(best.teacher_params[0]) * np.geomspace(1 / 30, 30, 90)
    D_T = float(best.teacher_tokens[0]) * np.geomspace(1 / 30, 30, 90)
    given = {
        "student_params": size,
        "budget": budget,
        "logits": scenario.logits,
        "pretraining": scenario.pretraining,
    }
    grid: dict[str, ArrayLike] = {**given, "teacher_params": N_T[None, :], "teacher_tokens": D_T[:, None]}
    excess = loss(grid, calibration, law) - best.loss[0]
    at = place(grid, calibration.architecture, calibration.supervised)
    panel = Panel(
        x=AXES["teacher_params"],
        y=AXES["teacher_tokens"],
        field=Field(
            x=N_T, y=D_T, z=np.broadcast_to(excess, (90, 90)), levels=NEAR, label=AXES["excess"].label,
            known=np.broadcast_to(near_runs(calibration, at), (90, 90)),
        ),
        series=(Series(label="optimum", points=(best.teacher_params, best.teacher_tokens)),),
    )  # fmt: skip
    return Chart(
        panels=(panel,),
        title=f"{said('student_params', size)}, {said('budget', budget)}, {scenario_title(scenario)}",
        note=f"{calibration.name}; blank: beyond the budget; {HATCH_NOTE}",
    )
