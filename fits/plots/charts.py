"""Charts of a fit, as data; :mod:`scaling.figures.render` draws them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from fits.checks.supervised_design import distinct_levels
from fits.estimation.profile_likelihood import Profile
from scaling.figures.chart import Array, Axis, Chart, Mark, Panel, Series, orders
from scaling.figures.labels import AXES, phrase

if TYPE_CHECKING:
    from fits.fitting import Fit

BAND = (0.05, 0.95)
"""Quantiles of the draws that a band shows."""
DEVIATION = Axis(label="(observed \u2212 predicted) / noise")
KINDS = {"supervised": 1, "distillation": 2}
"""Color of the runs of each kind."""
BAND_NOTE = "bands: 90 % of fitted curves"


def law_chart(fit: Fit, kind: str) -> Chart:
    """Chart student loss over teacher loss (nats/token): a panel a student size, a line a token count."""
    used = fit.table[(fit.table["excluded"] == "") & (fit.table["kind"] == "distillation")]
    N, D = used["params"].to_numpy(np.float64), used["tokens"].to_numpy(np.float64)
    L_T, L_S = used["teacher_loss"].to_numpy(np.float64), used["loss"].to_numpy(np.float64)
    grid = np.linspace(0.97 * L_T.min(), 1.03 * L_T.max(), 160)
    supervised, distilled = fit.calibration.sampled_supervised(), fit.calibration.sampled_law(kind)
    order = orders(len(cells := list(_by_level(D))))
    panels: list[Panel] = []
    for size, of_size in _by_level(N):
        lines: list[Series] = []
        for number, (tokens, of_tokens) in enumerate(cells):
            cell = np.flatnonzero(of_size & of_tokens)
            if not len(cell):
                continue
            own = float(np.exp(np.mean(np.log(N[cell]))))
            low, high = np.quantile(distilled.loss(own, tokens, grid, supervised), BAND, axis=0)
            lines.append(
                Series(
                    label=phrase("student_tokens", tokens), x=grid, low=low, high=high,
                    order=order[number], marker=number,
                    y=fit.distillation[kind].loss(own, tokens, grid, fit.supervised),
                    points=(L_T[cell], L_S[cell]),
                )
            )  # fmt: skip
        diagonal = Series(label="student = teacher", x=grid, y=grid, dash=":")
        panels.append(
            Panel(
                title=phrase("student_params", size),
                x=AXES["teacher_loss"],
                y=AXES["loss"],
                series=(*lines, diagonal),
            )
        )
    drawn = [line for panel in panels for line in panel.series if line.low is not None]
    seen = np.concatenate([np.concatenate([line.y, line.points[1]]) for line in drawn])
    margin = 0.04 * np.ptp(seen)
    axis = replace(AXES["loss"], limits=(float(seen.min() - margin), float(seen.max() + margin)))
    panels = [replace(panel, y=axis) for panel in panels]
    return Chart(panels=tuple(panels), title=f"{kind} law", note=BAND_NOTE)


def isoflop_chart(fit: Fit, budgets: int = 5) -> Chart:
    """Chart loss over parameters at fixed compute C = 6ND (FLOPs), with runs at the nearest budget.

    A run is moved along the law to that budget and keeps its relative residual.
    """
    used = fit.table[(fit.table["excluded"] == "") & (fit.table["kind"] == "supervised")]
    N, D = used["params"].to_numpy(np.float64), used["tokens"].to_numpy(np.float64)
    L = used["loss"].to_numpy(np.float64)
    region = fit.calibration.region
    if not len(N):
        spans = (region.student_params, region.student_tokens)
        assert spans[0] is not None and spans[1] is not None
        N_range, D_range = np.array(spans[0]), np.array(spans[1])
    else:
        N_range, D_range = np.array([N.min(), N.max()]), np.array([D.min(), D.max()])
    ends = np.log(6 * N_range * D_range)
    budget = np.exp(np.linspace(ends[0] + 0.12 * np.ptp(ends), ends[1] - 0.12 * np.ptp(ends), budgets))
    grid = np.geomspace(N_range[0] / 2, N_range[1] * 2, 160)
    sampled = fit.calibration.sampled_supervised()
    nearest = (
        np.argmin(np.abs(np.log(6 * N * D)[:, None] - np.log(budget)), axis=1) if len(N) else np.empty(0)
    )
    lines: list[Series] = []
    for order, (i, C) in zip(orders(budgets), enumerate(budget), strict=True):
        mine = nearest == i
        moved = (
            fit.supervised.loss(N[mine], C / (6 * N[mine])) * L[mine] / fit.supervised.loss(N[mine], D[mine])
        )
        low, high = np.quantile(sampled.loss(grid, C / (6 * grid)), BAND, axis=0)
        y = fit.supervised.loss(grid, C / (6 * grid))
        lines.append(
            Series(
                label=phrase("budget", C),
                x=grid,
                y=y,
                low=low,
                high=high,
                order=order,
                points=(N[mine], moved),
            )
        )
    best = [int(np.argmin(line.y)) for line in lines]
    inside = [(line, k) for line, k in zip(lines, best, strict=True) if 0 < k < len(grid) - 1]
    optima = np.array([(line.x[k], line.y[k]) for line, k in inside]).reshape(-1, 2).T
    seen = np.concatenate([np.append(line.points[1], line.y.min()) for line in lines])
    limits = (seen.min() - 0.08 * np.ptp(seen), seen.max() + 0.15 * np.ptp(seen))
    panel = Panel(
        x=replace(AXES["student_params"], label="parameters $N$ (non-embedding)"),
        y=Axis(label="loss $L(N, C/6N)$ (nats/token)", limits=limits),
        series=(*lines, Series(label="optimum", points=(optima[0], optima[1]), hollow=True)),
    )
    note = f"runs are moved along the law to the nearest compute; {BAND_NOTE}" if len(N) else BAND_NOTE
    return Chart(panels=(panel,), title="The supervised law at fixed compute $C = 6ND$", note=note)


def predicted_chart(fit: Fit) -> Chart:
    """Chart predicted against observed losses, and residuals, by kind of run and by hold-out rule."""
    used = fit.table[fit.table["excluded"] == ""]
    fitted = {kind: used[used["kind"] == kind] for kind in KINDS}
    found = [
        (kind, "fitted", rows["loss"].to_numpy(np.float64), rows["predicted"].to_numpy(np.float64))
        for kind, rows in fitted.items()
        if len(rows)
    ]
    found += [
        (held.kind, f"{held.rule} left out", np.array(held.observed), np.array(held.predicted))
        for held in fit.held_out
        if held.law in ("supervised", fit.default)
    ]
    points, errors = [], []
    for kind, rule, observed, predicted in found:
        rms = float(np.sqrt(np.mean((predicted - observed) ** 2)))
        label = f"{kind}, {rule} (n {len(observed)}, rms {rms:.4f})"
        look: dict[str, Any] = {"kind": KINDS[kind], "hollow": rule != "fitted"}
        if not look["hollow"]:
            look["marker"] = KINDS[kind] - 1
        points.append(Series(label=label, points=(predicted, observed), **look))
        errors.append(Series(points=(predicted, observed - predicted), **look))
    every = np.concatenate([np.concatenate([observed, predicted]) for *_, observed, predicted in found])
    ends = np.array([every.min(), every.max()])
    predicted_axis = Axis(label="predicted loss (nats/token)")
    equal = Series(x=ends, y=ends, dash=":")
    return Chart(
        panels=(
            Panel(x=predicted_axis, y=Axis(label="observed loss (nats/token)"), series=(*points, equal)),
            Panel(
                x=predicted_axis, y=Axis(label="observed \u2212 predicted (nats/token)"),
                series=tuple(errors), marks=(Mark(at=0.0, across="y"),),
            ),
        )
    )  # fmt: skip


def residuals_chart(fit: Fit) -> Chart:
    """Chart residuals in units of the estimated noise: over the predicted loss, and as a normal Q-Q plot."""
    over, quantiles = [], []
    for kind, predicted, deviation in _residuals(fit):
        order, rank = np.argsort(deviation), np.arange(1, len(deviation) + 1)
        expected = np.asarray(norm.ppf((rank - 0.375) / (len(deviation) + 0.25)))
        look: dict[str, Any] = {"kind": KINDS[kind], "marker": KINDS[kind] - 1}
        label = f"{kind} (n {len(deviation)})"
        over.append(Series(label=label, points=(predicted[order], deviation[order]), **look))
        quantiles.append(Series(points=(expected, deviation[order]), **look))
    most = max(float(np.abs(series.points[0]).max()) for series in quantiles)
    ends = np.array([-most, most])
    return Chart(
        panels=(
            Panel(
                x=Axis(label="predicted loss (nats/token)"), y=DEVIATION, series=tuple(over),
                marks=(Mark(at=0.0, across="y"),),
            ),
            Panel(
                x=Axis(label="quantile of a normal distribution"), y=DEVIATION,
                series=(*quantiles, Series(x=ends, y=ends, dash=":")),
            ),
        )
    )  # fmt: skip


def _residuals(fit: Fit) -> Iterator[tuple[str, Array, Array]]:
    """Yield kind of run, predicted losses and deviations of the supervised and the default law."""
    for law, estimate in fit.estimates.items():
        kinds = estimate.model.rows.kind
        for number, kind in enumerate(KINDS):
            mine = np.flatnonzero(kinds == number)
            if len(mine) and (number == 0 or law == fit.default):
                yield kind, estimate.losses[mine], (estimate.residual / estimate.sigma)[mine]


def profile_chart(profile: Profile, quantity: str) -> Chart:
    """Chart the deviance around the best value, with the interval where it is below the threshold."""
    threshold = float(chi2.ppf(profile.level, 1))
    curvature = ((profile.values - profile.best) / profile.error) ** 2
    ends = [end for end in (profile.low, profile.high) if np.isfinite(end)]
    panel = Panel(
        x=Axis(label=quantity),
        y=Axis(label="deviance (twice the rise of the objective)", limits=(0.0, 4 * threshold)),
        series=(
            Series(label="everything else refitted", x=profile.values, y=profile.deviance, kind=1),
            Series(label="from the curvature", x=profile.values, y=curvature, dash=":"),
        ),
        marks=(Mark(at=threshold, across="y"), *(Mark(at=end, kind=2) for end in ends)),
    )
    title = f"{100 * profile.level:.0f} % interval {profile.low:.4g} to {profile.high:.4g}"
    return Chart(panels=(panel,), title=title)


def corner(fit: Fit, kind: str) -> dict[str, Array]:
    """Return the draws (draws,) of a law's varying coefficients, as logarithms to base 10, by name."""
    return {name: np.log10(values) for name, values in fit.draws[kind].items() if np.ptp(values) > 0}


def _by_level(values: Array) -> Iterator[tuple[float, NDArray[np.bool_]]]:
    """Yield each distinct level of a size and a mask of the values at that level."""
    of_value = np.log(distinct_levels(values))
    nearest = np.argmin(np.abs(np.log(values)[:, None] - of_value), axis=1)
    for i, level in enumerate(of_value):
        yield float(np.exp(level)), nearest == i
