"""Drawing: arrays in, a Matplotlib figure out. No pyplot, so no display and no global state is needed.

Ordered quantities take the colours of viridis, which survives every common form of colour blindness and
greyscale; kinds take Okabe and Ito's colours. Every series has its own marker as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from scipy.stats import chi2

from fits.plots.data import Array, Curve, Panel, Residuals, Scatter
from fits.plots.figure import Figure
from fits.profile import Profile

MARKERS = "osD^vPX*<>"
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def law_figure(panels: Sequence[Panel], title: str = "") -> Figure:
    """Student loss over teacher loss, one panel a student size."""
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axis, panel in zip(axes.flat, panels, strict=False):
        _curves(axis, panel.curves)
        x = np.array(axis.get_xlim())
        y = axis.get_ylim()
        axis.plot(x, x, color="0.6", linewidth=1, linestyle=":", zorder=0, label="student = teacher")
        axis.set(xlim=x, ylim=y, title=panel.title)
        axis.set_xlabel("teacher loss $L_T$ (nats/token)")
        axis.set_ylabel("student loss $L_S$ (nats/token)")
        axis.legend(fontsize=7, frameon=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis in axes.flat[max(len(panels) - columns, 0) : len(panels)]:
        axis.tick_params(labelbottom=True)
    if title:
        figure.suptitle(title)
    return figure


def isoflop_figure(panel: Panel) -> Figure:
    """Loss over parameters at fixed compute; a cross marks the optimum of each budget."""
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axis = figure.subplots()
    _curves(axis, panel.curves)
    for curve in panel.curves:
        best = int(np.argmin(curve.y))
        if 0 < best < len(curve.x) - 1:
            axis.plot(curve.x[best], curve.y[best], marker="x", color="black", markersize=8, zorder=5)
    seen = [y for curve in panel.curves for y in (*curve.run_y, curve.y.min())]
    axis.set(
        xscale="log",
        title=panel.title,
        ylim=(min(seen) - 0.08 * np.ptp(seen), max(seen) + 0.15 * np.ptp(seen)),
    )
    axis.set_xlabel("non-embedding parameters $N$")
    axis.set_ylabel("loss $L(N, C/6N)$ (nats/token)")
    axis.legend(fontsize=8, frameon=False, title="$C = 6ND$; x: optimum", title_fontsize=8)
    return figure


def predicted_figure(scatters: Sequence[Scatter]) -> Figure:
    """Predicted against observed, and the residuals below."""
    figure = Figure(figsize=(5.6, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.4))
    for i, scatter in enumerate(scatters):
        style = {
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": "none",
            "markersize": 4.5,
            "color": OKABE_ITO[i % len(OKABE_ITO)],
            "markerfacecolor": "none" if "left out" in scatter.label else OKABE_ITO[i % len(OKABE_ITO)],
            "alpha": 0.85,
        }
        label = f"{scatter.label} (n {len(scatter.observed)}, rms {scatter.rmse:.4f})"
        above.plot(scatter.observed, scatter.predicted, label=label, **style)
        below.plot(scatter.observed, scatter.predicted - scatter.observed, **style)
    everything = np.concatenate([np.concatenate([s.observed, s.predicted]) for s in scatters])
    ends = np.array([everything.min(), everything.max()])
    above.plot(ends, ends, color="0.5", linewidth=1, zorder=0)
    below.axhline(0, color="0.5", linewidth=1, zorder=0)
    above.set_ylabel("predicted loss (nats/token)")
    below.set_ylabel("predicted − observed\n(nats/token)")
    below.set_xlabel("observed loss (nats/token)")
    above.legend(fontsize=8, frameon=False)
    return figure


def residuals_figure(parts: Sequence[Residuals]) -> Figure:
    """Standardised residuals over the predicted loss, and their quantiles against a normal distribution."""
    figure = Figure(figsize=(8.8, 3.9), layout="constrained")
    over, quantiles = figure.subplots(1, 2)
    for i, part in enumerate(parts):
        style = {"marker": MARKERS[i], "linestyle": "none", "markersize": 4.5, "color": OKABE_ITO[i]}
        over.plot(part.predicted, part.deviation, label=f"{part.label} (n {len(part.deviation)})", **style)
        quantiles.plot(part.normal, part.deviation, **style)
    ends = np.array([min(p.normal[0] for p in parts), max(p.normal[-1] for p in parts)])
    quantiles.plot(ends, ends, color="0.5", linewidth=1, zorder=0)
    over.axhline(0, color="0.5", linewidth=1, zorder=0)
    over.set(xlabel="predicted loss (nats/token)", ylabel="(observed − predicted) / noise")
    quantiles.set(xlabel="quantile of a normal distribution", ylabel="(observed − predicted) / noise")
    over.legend(fontsize=8, frameon=False)
    return figure


def profile_figure(profile: Profile, quantity: str) -> Figure:
    """The deviance around the best value, with the interval where it stays below its threshold."""
    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    axis = figure.subplots()
    axis.plot(profile.values, profile.deviance, color=OKABE_ITO[0], label="everything else refitted")
    curvature = ((profile.values - profile.best) / profile.error) ** 2
    axis.plot(profile.values, curvature, color="0.5", linestyle=":", label="from the curvature")
    threshold = float(chi2.ppf(profile.level, 1))
    axis.axhline(threshold, color="0.6", linewidth=1)
    for end in (profile.low, profile.high):
        if np.isfinite(end):
            axis.axvline(end, color=OKABE_ITO[1], linewidth=1)
    axis.set(xlabel=quantity, ylabel="deviance", ylim=(0, 4 * threshold))
    axis.set_title(
        f"{100 * profile.level:.0f} % interval {profile.low:.4g} to {profile.high:.4g}", fontsize=10
    )
    axis.legend(fontsize=8, frameon=False)
    return figure


def corner_figure(drawn: Mapping[str, Array], title: str) -> Figure:
    """Every pair of coefficients in the draws, and each one's histogram on the diagonal."""
    names = list(drawn)
    figure = Figure(figsize=(1.6 * len(names) + 1, 1.6 * len(names) + 1), layout="constrained")
    axes = figure.subplots(len(names), len(names), squeeze=False, sharex="col")
    for i, below in enumerate(names):
        for j, name in enumerate(names):
            axis = axes[i, j]
            axis.tick_params(labelsize=6)
            if j > i:
                axis.set_axis_off()
            elif j == i:
                axis.hist(drawn[name], bins=24, color=OKABE_ITO[0], alpha=0.7)
                axis.set_yticks([])
            else:
                axis.plot(drawn[name], drawn[below], ".", markersize=2, color=OKABE_ITO[0], alpha=0.4)
            if i == len(names) - 1:
                axis.set_xlabel(f"$\\log_{{10}}$ {name}", fontsize=8)
            if j == 0 and i > 0:
                axis.set_ylabel(f"$\\log_{{10}}$ {below}", fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _curves(axis: Axes, curves: Sequence[Curve]) -> None:
    colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, max(len(curves), 1)))
    for i, curve in enumerate(curves):
        axis.fill_between(curve.x, curve.low, curve.high, color=colours[i], alpha=0.15, linewidth=0)
        axis.plot(curve.x, curve.y, color=colours[i], linewidth=1.4)
        marker = MARKERS[i % len(MARKERS)]
        axis.plot(
            curve.run_x,
            curve.run_y,
            marker=marker,
            color=colours[i],
            linestyle="none",
            markersize=4.5,
            label=curve.label,
        )
