"""The optimum over budgets and student sizes: the family behind Figures 9 and 18-34 of Busbridge et al. 2025
(arXiv 2502.08606), for any calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from scaling.calibration.calibration import Calibration
from scaling.costs.scenarios import Scenario
from scaling.figures.chart import Array, Chart, Field, Mark, Panel, Series, orders
from scaling.figures.decisions import BAND_DRAWS, PARTS, decide, redecided
from scaling.figures.labels import AXES, phrase
from scaling.figures.law_inputs import law_inputs, near_runs
from scaling.figures.slices import BAND, BAND_NOTE, HATCH_NOTE, contour_levels, loss, zero_note
from scaling.laws import AnySupervisedLaw, tokens_for_loss
from scaling.planner.optimizer import Optima
from scaling.planner.uncertainty import COVERAGE

DECIDED = ("student_tokens", "teacher_params", "teacher_tokens", "teacher_loss")
"""Decisions of a plan, where the student's size is given."""
LEAST = 1e-3
"""The multiple of direct training that stands for none, where direct training never gets there."""
NEAR = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""nats/token above the optimum that a map of its neighborhood shows."""
REACH, CELLS = 10.0, 150
"""Factor beyond the best teacher that the map reaches, and its number of cells on a side."""
FLAT = 0.8
"""Share of a map above which a decision that is held at a bound is not shown."""


def over_budgets(
    calibration: Calibration,
    scenario: Scenario,
    sizes: Sequence[float],
    budgets: Array,
    law: str | None = None,
) -> Chart:
    """Return every decision over compute, a line a student size, with 90 % bands of the draws' own optima."""
    series: dict[str, list[Series]] = {name: [] for name in (*DECIDED, "loss")}
    for order, size in zip(orders(len(sizes)), sizes, strict=True):
        found = decide(calibration, scenario, size, budgets, law)
        drawn = _drawn(calibration, scenario, size, budgets, law)
        for name, lines in series.items():
            low, high = _band(drawn, name)
            lines.append(
                Series(
                    label=phrase("student_params", size), x=budgets, y=getattr(found.optima, name),
                    low=low, high=high, known=found.known, order=order,
                )
            )  # fmt: skip
        series["loss"].append(Series(x=budgets, y=found.direct, order=order, dash="--"))
    return Chart(
        panels=tuple(Panel(x=AXES["budget"], y=AXES[name], series=tuple(series[name])) for name in series),
        title=f"Optimal decisions, {scenario.title} ({calibration.name})",
        note=f"dashed: direct training; {BAND_NOTE}",
    )


def by_scenario(
    calibration: Calibration,
    name: str,
    scenarios: Sequence[Scenario],
    sizes: Sequence[float],
    budgets: Array,
    law: str | None = None,
) -> Chart:
    """Return one decision over compute, a panel a student size and a line a scenario, with bands."""
    panels = []
    for size in sizes:
        lines = []
        for kind, scenario in enumerate(scenarios, start=1):
            found = decide(calibration, scenario, size, budgets, law)
            low, high = _band(_drawn(calibration, scenario, size, budgets, law), name)
            lines.append(
                Series(
                    label=scenario.title, x=budgets, y=getattr(found.optima, name),
                    low=low, high=high, known=found.known, kind=kind,
                )
            )  # fmt: skip
        if name == "student_tokens":
            alone = budgets / calibration.architecture.training_flops(size, 1.0)
            lines.append(Series(label="direct training", x=budgets, y=alone, dash="--"))
        panels.append(
            Panel(title=phrase("student_params", size), x=AXES["budget"], y=AXES[name], series=tuple(lines))
        )
    return Chart(
        panels=tuple(panels),
        title=f"Optimal {name.replace('_', ' ').replace('params', 'parameters')} ({calibration.name})",
        note=BAND_NOTE,
    )


def _drawn(
    calibration: Calibration, scenario: Scenario, size: float, budgets: Array, law: str | None
) -> Optima | None:
    """Return the optima of one student if a draw were the truth, (draws, budgets)."""
    if not calibration.draw_count:
        return None
    each = [redecided(calibration, scenario, size, float(C), law)[0] for C in budgets]
    return Optima(*(np.stack(columns, axis=1) for columns in zip(*each, strict=True)))


def _band(drawn: Optima | None, name: str) -> tuple[Array | None, Array | None]:
    if drawn is None:
        return None, None
    low, high = np.quantile(getattr(drawn, name), BAND, axis=0)
    return low, high


def shares_over_budgets(
    calibration: Calibration,
    scenario: Scenario,
    sizes: Sequence[float],
    budgets: Array,
    law: str | None = None,
) -> Chart:
    """Return how the compute is divided at the optimum, a panel a student size, with bands."""
    panels = []
    for size in sizes:
        found = decide(calibration, scenario, size, budgets, law)
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
            Panel(title=phrase("student_params", size), x=AXES["budget"], y=share, series=tuple(lines))
        )
    return Chart(
        panels=tuple(panels),
        title=f"Optimal allocation, {scenario.title} ({calibration.name})",
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
    """Return the optimum over compute and student size, a panel a quantity."""
    rows = [decide(calibration, scenario, float(size), budgets, law) for size in sizes]
    known = np.stack([row.known for row in rows])
    note, panels = "", []
    for name in shown:
        z = np.stack(
            [row.direct - row.optima.loss if name == "gain" else getattr(row.optima, name) for row in rows]
        )
        z = np.where(np.isfinite(z), z, np.nan)
        note += zero_note(z) if name == "gain" else ""
        size = AXES[name].sizes
        if size and _is_flat(z):
            continue
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
        title=f"The optimum, {scenario.title} ({calibration.name})",
        note=note + HATCH_NOTE,
    )


def _is_flat(z: Array) -> bool:
    """Return whether a decision is held at a bound nearly everywhere."""
    ends = np.nanmin(z), np.nanmax(z)
    return any(np.mean(np.abs(z[np.isfinite(z)] / end - 1) < 0.05) > FLAT for end in ends)


def savings(
    calibration: Calibration,
    scenarios: Sequence[Scenario],
    sizes: Sequence[float],
    budgets: Array,
    law: str | None = None,
) -> Chart:
    """Return the compute and tokens that a loss takes, as multiples of direct training.

    Tokens are the student's, and the teacher's in the share in which its training is charged (Eq. 34).
    """
    pairs = [
        [
            _multiples(calibration, scenario, size, budgets, law, order)
            for order, size in zip(orders(len(sizes)), sizes, strict=True)
        ]
        for scenario in scenarios
    ]
    return Chart(
        panels=tuple(
            Panel(
                title=scenario.title, x=AXES["loss"], y=replace(AXES[ratio], limits=_limits(pairs, row)),
                series=tuple(pair[row] for pair in of_scenario), marks=(Mark(at=1.0, across="y"),),
            )
            for row, ratio in enumerate(("compute_ratio", "tokens_ratio"))
            for scenario, of_scenario in zip(scenarios, pairs, strict=True)
        ),
        columns=len(scenarios),
        title=f"What a loss takes, against direct training ({calibration.name})",
        note=f"no line: direct training never gets there; {BAND_NOTE}",
    )  # fmt: skip


def _limits(pairs: Sequence[Sequence[tuple[Series, Series]]], row: int) -> tuple[float, float]:
    """Return limits of an axis of multiples around 1 and what is drawn, from a tenth to ten times at most."""
    seen = np.concatenate([pair[row].y for of_scenario in pairs for pair in of_scenario])
    return max(0.1, min(0.8, 0.9 * np.nanmin(seen))), min(10.0, max(1.25, 1.1 * np.nanmax(seen)))


def _multiples(
    calibration: Calibration,
    scenario: Scenario,
    size: float,
    budgets: Array,
    law: str | None,
    order: float,
) -> tuple[Series, Series]:
    """Return compute and tokens over the loss they reach, as multiples of those of direct training."""
    found = decide(calibration, scenario, size, budgets, law)
    goal = found.optima.loss
    points = _times(calibration, calibration.supervised, scenario, found.optima, budgets)
    drawn = _drawn(calibration, scenario, size, budgets, law)
    bands: list[tuple[Array | None, Array | None]] = [(None, None), (None, None)]
    if drawn is not None:
        supervised = calibration.sampled_supervised(calibration.draw_step(BAND_DRAWS))
        times = _times(calibration, supervised, scenario, drawn, budgets)
        bands = [_at_goals(goal, drawn.loss, each) for each in times]
    compute, tokens = (
        Series(
            label=phrase("student_params", size), x=goal, y=np.where(y > LEAST, y, np.nan),
            low=low, high=high, known=found.known, order=order,
        )
        for y, (low, high) in zip(points, bands, strict=True)
    )  # fmt: skip
    return compute, tokens


def _times(
    calibration: Calibration, supervised: AnySupervisedLaw, scenario: Scenario, optima: Optima, budgets: Array
) -> tuple[Array, Array]:
    """Return multiples of compute and of tokens; ``LEAST`` where direct training never reaches the loss."""
    size = optima.student_params
    alone = tokens_for_loss(supervised, size, optima.loss)
    tokens = optima.student_tokens
    if scenario.pretraining:
        tokens = tokens + scenario.pretraining * optima.teacher_tokens
    compute = budgets / calibration.architecture.training_flops(size, alone)
    return np.maximum(compute, LEAST), np.maximum(tokens / alone, LEAST)


def _at_goals(goal: Array, losses: Array, times: Array) -> tuple[Array, Array]:
    """Return the band of the draws' multiples, (draws, budgets), where they reach a goal; nan if few do."""
    reached = [
        np.interp(-goal, -of_draw, np.log(multiple), left=np.nan, right=np.nan)
        for of_draw, multiple in zip(losses, times, strict=True)
    ]
    few = np.isnan(reached).mean(axis=0) > 1 - COVERAGE
    low, high = np.exp(np.nanquantile(np.where(few, 0.0, reached), BAND, axis=0))
    return np.where(few, np.nan, low), np.where(few, np.nan, high)


def near_optimum(
    calibration: Calibration, scenario: Scenario, size: float, budget: float, law: str | None = None
) -> Chart:
    """Return the loss above the optimum with teachers of other sizes and tokens than the best."""
    best = decide(calibration, scenario, size, [budget], law).optima
    N_T = float(best.teacher_params[0]) * np.geomspace(1 / REACH, REACH, CELLS)
    D_T = float(best.teacher_tokens[0]) * np.geomspace(1 / REACH, REACH, CELLS)
    given = {
        "student_params": size,
        "budget": budget,
        "logits": scenario.logits,
        "pretraining": scenario.pretraining,
    }
    grid: dict[str, ArrayLike] = {**given, "teacher_params": N_T[None, :], "teacher_tokens": D_T[:, None]}
    excess = loss(grid, calibration, law) - best.loss[0]
    at = law_inputs(grid, calibration.architecture, calibration.supervised)
    panel = Panel(
        x=AXES["teacher_params"],
        y=AXES["teacher_tokens"],
        field=Field(
            x=N_T, y=D_T, z=np.broadcast_to(excess, (CELLS, CELLS)), levels=NEAR, label=AXES["excess"].label,
            known=np.broadcast_to(near_runs(calibration, at), (CELLS, CELLS)),
        ),
        series=(Series(label="optimum", points=(best.teacher_params, best.teacher_tokens)),),
    )  # fmt: skip
    return Chart(
        panels=(panel,),
        title=f"{phrase('student_params', size)}, {phrase('budget', budget)}, {scenario.title}",
        note=f"{calibration.name}; blank: beyond the budget; {HATCH_NOTE}",
    )
