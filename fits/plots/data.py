"""What the figures show, as plain arrays; nothing here draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from fits.design import levels

if TYPE_CHECKING:
    from fits.fitting import Fit

Array = NDArray[np.float64]
BAND = (0.05, 0.95)
"""Quantiles of the draws that a band shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A law along one variable, with its 90 % band, and the runs beside it."""

    label: str
    x: Array
    y: Array
    low: Array
    high: Array
    run_x: Array
    run_y: Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """Curves that share axes."""

    title: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scatter:
    """Predicted against observed losses of one kind of run, nats/token."""

    label: str
    observed: Array
    predicted: Array
    runs: tuple[str, ...]
    rmse: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Residuals:
    """Residuals of one kind of run in units of the noise they are taken to have, in ascending order."""

    label: str
    predicted: Array
    """nats/token"""
    deviation: Array
    """(observed - predicted) / noise, on the scale of the fit."""
    normal: Array
    """What the ordered deviations of as many normal residuals would be expected to be."""


def law_panels(fit: Fit, kind: str) -> tuple[Panel, ...]:
    """Student loss over teacher loss: a panel a student size, a curve a token count (nats/token)."""
    used = fit.table[(fit.table["excluded"] == "") & (fit.table["kind"] == "distillation")]
    N, D = used["params"].to_numpy(np.float64), used["tokens"].to_numpy(np.float64)
    L_T, L_S = used["teacher_loss"].to_numpy(np.float64), used["loss"].to_numpy(np.float64)
    grid = np.linspace(0.97 * L_T.min(), 1.03 * L_T.max(), 160)
    supervised, distilled = fit.calibration.sampled_supervised(), fit.calibration.sampled_law(kind)
    panels: list[Panel] = []
    for size, of_size in _by_level(N):
        curves: list[Curve] = []
        for tokens, here in _by_level(D[of_size]):
            cell = np.flatnonzero(of_size)[here]
            size_here, tokens_here = float(np.exp(np.mean(np.log(N[cell])))), tokens
            y = fit.distillation[kind].loss(size_here, tokens_here, grid, fit.supervised)
            low, high = np.quantile(distilled.loss(size_here, tokens_here, grid, supervised), BAND, axis=0)
            curves.append(
                Curve(
                    label=f"{short(tokens)} tokens",
                    x=grid,
                    y=y,
                    low=low,
                    high=high,
                    run_x=L_T[cell],
                    run_y=L_S[cell],
                )
            )
        panels.append(Panel(title=f"student of {short(size)}", curves=tuple(curves)))
    return tuple(panels)


def isoflop_curves(fit: Fit, budgets: int = 5) -> Panel:
    """Loss over parameters at fixed compute C = 6ND (FLOPs); runs stand with the nearest budget.

    A run is moved along the law to its budget and keeps its residual: its height above the curve is its own.
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
    curves: list[Curve] = []
    for i, C in enumerate(budget):
        mine = nearest == i
        moved = (
            fit.supervised.loss(N[mine], C / (6 * N[mine])) * L[mine] / fit.supervised.loss(N[mine], D[mine])
        )
        low, high = np.quantile(sampled.loss(grid, C / (6 * grid)), BAND, axis=0)
        y = fit.supervised.loss(grid, C / (6 * grid))
        curves.append(
            Curve(label=f"{C:.1e} FLOPs", x=grid, y=y, low=low, high=high, run_x=N[mine], run_y=moved)
        )
    return Panel(title="supervised law at fixed compute", curves=tuple(curves))


def predictions(fit: Fit) -> tuple[Scatter, ...]:
    """Predicted against observed, one scatter a kind of run and one for what was held out."""
    used = fit.table[fit.table["excluded"] == ""]
    found: list[Scatter] = []
    for kind, rows in used.groupby("kind", sort=False):
        observed, predicted = rows["loss"].to_numpy(np.float64), rows["predicted"].to_numpy(np.float64)
        found.append(_scatter(f"{kind}, fitted", observed, predicted, tuple(rows["run"])))
    for held in fit.held_out:
        if held.law in ("supervised", fit.default):
            observed, predicted = np.array(held.observed), np.array(held.predicted)
            found.append(_scatter(f"{held.kind}, {held.rule} left out", observed, predicted, held.runs))
    return tuple(found)


def residuals(fit: Fit) -> tuple[Residuals, ...]:
    """The residuals of the supervised law and of the default distillation law, where they were fitted."""
    found: list[Residuals] = []
    for law, estimate in fit.estimates.items():
        kinds = estimate.model.rows.kind
        for number, kind in enumerate(("supervised", "distillation")):
            mine = np.flatnonzero(kinds == number)
            if len(mine) and (number == 0 or law == fit.default):
                deviation = (estimate.residual / estimate.sigma)[mine]
                order, rank = np.argsort(deviation), np.arange(1, len(mine) + 1)
                found.append(
                    Residuals(
                        label=kind,
                        predicted=estimate.losses[mine][order],
                        deviation=deviation[order],
                        normal=np.asarray(norm.ppf((rank - 0.375) / (len(mine) + 0.25))),
                    )
                )
    return tuple(found)


def corner(fit: Fit, kind: str) -> dict[str, Array]:
    """The draws (draws,) of a law's coefficients that vary, as logarithms to base 10, by name."""
    return {name: np.log10(values) for name, values in fit.draws[kind].items() if np.ptp(values) > 0}


def short(value: float) -> str:
    """A size for a legend: 143M, 2.5k."""
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def _scatter(label: str, observed: Array, predicted: Array, runs: tuple[str, ...]) -> Scatter:
    rmse = float(np.sqrt(np.mean((predicted - observed) ** 2)))
    return Scatter(label=label, observed=observed, predicted=predicted, runs=runs, rmse=rmse)


def _by_level(values: Array) -> Iterator[tuple[float, NDArray[np.bool_]]]:
    """Each distinct level of a size and which of the values belong to it."""
    of_value = np.log(levels(values))
    nearest = np.argmin(np.abs(np.log(values)[:, None] - of_value), axis=1)
    for i, level in enumerate(of_value):
        yield float(np.exp(level)), nearest == i
