"""Drawing: a chart in, a Matplotlib figure out. No pyplot, so no display and no global state is needed."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from scaling.figures.chart import Axis, Bars, Chart, Field, Panel, Series
from scaling.figures.figure import Figure
from scaling.figures.style import DIVERGING, MARKERS, ORDERED, faint, of_kind, of_order, style
from scaling.units import format_number, format_power

LETTERS = 9
"""Letters of a title per inch."""
LEGEND = 2.0
"""Inches that a legend beside several panels may take."""
PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.2
ROW_HEIGHT = 0.42
"""Inches: of a panel, and of a row where an axis counts rows."""
CONTOUR = "#222222"
"""Contours lie on colors, not on the page."""


def draw(chart: Chart, dark: bool = False) -> Figure:
    """The chart as a figure, for print or for a dark page."""
    columns = 2 if len(chart.panels) == 4 else min(len(chart.panels), chart.columns)
    rows = -(-len(chart.panels) // columns)
    named = max(len(panel.y.names) for panel in chart.panels)
    height = 1.3 + ROW_HEIGHT * named if named else PANEL_HEIGHT
    width = PANEL_WIDTH if len(chart.panels) > 1 else 1.4 * PANEL_WIDTH
    if len(chart.panels) == 1 and not named:
        height *= 1.25
    with style(dark):
        figure = Figure(
            figsize=(width * columns, height * rows + 0.35 * bool(chart.title) + 0.2 * bool(chart.note)),
            layout="constrained",
        )
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)  # type: ignore[union-attr,call-arg]
        axes = figure.subplots(rows, columns, squeeze=False)
        for at, panel in zip(axes.flat, chart.panels, strict=False):
            _panel(figure, at, panel)
        for at in axes.flat[len(chart.panels) :]:
            at.set_axis_off()
        _legends(figure, list(axes.flat[: len(chart.panels)]), chart)
        if chart.title:
            room = width * columns - (LEGEND if columns > 1 else 0.0)
            figure.suptitle(fill(chart.title, round(LETTERS * room)))
        if chart.note:
            note = fill(chart.note, round(1.6 * LETTERS * width * columns))
            figure.supxlabel(note, fontsize=7.5, color=faint())
    return figure


def _panel(figure: Figure, at: Axes, panel: Panel) -> None:
    for number, (low, high) in enumerate(panel.beyond):
        label = "too far beyond the fitted runs" if not number else None
        at.axvspan(low, high, color=faint(), alpha=0.12, linewidth=0, zorder=0, label=label)
    if panel.field is not None:
        _field(figure, at, panel.field)
    if panel.bars is not None:
        _bars(at, panel.bars)
    for number, series in enumerate(panel.series):
        _series(at, series, MARKERS[number % len(MARKERS)])
    for mark in panel.marks:
        line = at.axvline if mark.across == "x" else at.axhline
        color = of_kind(mark.kind) if mark.kind else faint()
        line(mark.at, color=color, linewidth=0.9, linestyle=":", zorder=1, label=mark.label or None)
    at.set_title(panel.title)
    _axis(at, panel.x, "x")
    _axis(at, panel.y, "y")


def _series(at: Axes, series: Series, marker: str) -> None:
    color = of_kind(series.kind) if series.order is None else of_order(series.order)
    label = series.label or None
    if series.low is not None and series.high is not None:
        at.fill_between(series.x, series.low, series.high, color=color, alpha=0.18, linewidth=0, zorder=2)
    if len(series.x):
        shown = np.ones(len(series.x), dtype=bool) if series.known is None else series.known
        if not shown.all():
            at.plot(series.x, series.y, series.dash, color=color, linewidth=0.9, alpha=0.55, zorder=3)
        solid = np.where(shown, series.y, np.nan)
        at.plot(
            series.x,
            solid,
            series.dash,
            color=color,
            zorder=3,
            label=None if len(series.points[0]) else label,
        )
    x, y = series.points
    if len(x):
        if series.spans is not None:
            at.hlines(y, *series.spans, color=color, linewidth=series.thick, zorder=3)
        if series.thick > 2:
            at.plot([], [], color=color, linewidth=series.thick, label=label)
            return
        face = at.get_facecolor() if series.hollow else color
        at.plot(
            x, y, marker, color=color, markerfacecolor=face, markeredgewidth=0.9, alpha=0.85, zorder=4,
            label=label,
        )  # fmt: skip


def _field(figure: Figure, at: Axes, field: Field) -> None:
    values = np.ma.masked_invalid(field.z)
    where = field.x, field.y, values
    norm = BoundaryNorm(field.levels, 256, extend="both")  # equal color steps between levels
    colors = DIVERGING if field.diverging else ORDERED
    filled = at.contourf(
        *where, levels=field.levels, cmap=colors, norm=norm, extend="both", alpha=0.9, zorder=0
    )
    lines: dict[str, Any] = {"colors": [CONTOUR], "linestyles": "solid", "zorder": 1}
    at.contour(*where, levels=field.levels, linewidths=0.5, alpha=0.6, **lines)
    if field.diverging:
        at.contour(*where, levels=[0.0], linewidths=1.6, **lines)
    if field.known is not None and not field.known.all():
        outside = np.where(field.known, 0.0, 1.0)
        at.contourf(field.x, field.y, outside, levels=[0.5, 1.5], colors="none", hatches=["////"], zorder=1)
    bar = figure.colorbar(filled, ax=at, pad=0.02, aspect=28)
    bar.set_label(field.label, fontsize=8)
    bar.ax.tick_params(labelsize=7, which="both", length=0)
    bar.set_ticks(list(field.levels), minor=False)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(_size if field.sizes else lambda value, _: f"{value:g}"))
    at.grid(visible=False)


def _bars(at: Axes, bars: Bars) -> None:
    left, page = np.zeros(len(bars.shares)), at.get_facecolor()
    for number, (label, part) in enumerate(zip(bars.labels, bars.shares.T, strict=True)):
        drawn = at.barh(
            np.arange(len(part)), part, left=left, height=0.6, color=of_kind(number + 1), label=label
        )
        texts = [f"{100 * share:.0f} %" if share >= 0.06 else "" for share in part]
        at.bar_label(drawn, texts, label_type="center", fontsize=7.5, color=page, fontweight="bold")
        left += part


def _axis(at: Axes, axis: Axis, which: str) -> None:
    if axis.names:
        at.set_yticks(range(len(axis.names)), list(axis.names))
        at.set_ylim(len(axis.names) - 0.4, -0.6)
        at.grid(visible=False, axis="y")
        return
    own = at.xaxis if which == "x" else at.yaxis
    own.set_label_text(axis.label)
    if axis.log:
        getattr(at, f"set_{which}scale")("log")
    if axis.limits is not None:
        getattr(at, f"set_{which}lim")(axis.limits)
    if axis.log:
        low, high = own.get_view_interval()
        decades = np.log10(high / low)
        if decades < 2.3:
            steps = (1, 2, 5) if decades > 0.6 else (1, 1.5, 2, 3, 4, 5, 6, 8)
            own.set_major_locator(LogLocator(subs=steps, numticks=12))
        else:
            own.set_major_locator(LogLocator(numticks=7))
        own.set_minor_formatter(NullFormatter())
        own.set_minor_locator(NullLocator() if decades < 2.3 else LogLocator(subs="auto", numticks=7))
        if axis.sizes or decades < 2.3:
            own.set_major_formatter(FuncFormatter(_size))
    elif which == "x":
        own.set_major_locator(MaxNLocator(6))


def _size(value: float, _: object = None) -> str:
    return format_number(value, 2) if value < 1e15 else format_power(value, 2)


def _legends(figure: Figure, axes: Sequence[Axes], chart: Chart) -> None:
    """One legend for all panels where they show the same, or where one panel has any; else each its own."""
    each = [at.get_legend_handles_labels() for at in axes]
    labelled = [found for found in each if found[1]]
    alike = len({tuple(texts) for _, texts in labelled}) == 1
    if alike and len(axes) > 1:
        if len(labelled) > 1:
            figure.legend(*labelled[0], loc="outside right upper")
        else:
            figure.legend(*labelled[0], loc="outside lower center", ncols=2)
        return
    for at, panel, (handles, texts) in zip(axes, chart.panels, each, strict=True):
        if texts and panel.y.names:
            at.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(texts), 3))
        elif texts:
            at.legend(handles, texts)
