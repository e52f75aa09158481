"""Drawing: a chart in, a Matplotlib figure out. No pyplot, so no display and no global state is needed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from textwrap import fill
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from scaling.figures.chart import Axis, Bars, Chart, Field, Panel, Series
from scaling.figures.figure import Figure
from scaling.figures.style import MARKERS, faint, of_contours, of_kind, of_order, style
from scaling.units import format_number, format_power

LETTERS = 11.0
"""Letters of a title per inch."""
ENTRY_LETTERS, ENTRY_MARGIN, ENTRY_HEIGHT = 16.0, 0.6, 0.17
"""Letters of a legend per inch, and inches of what stands beside them and of a line."""
PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.2
ROW_HEIGHT = 0.42
"""Inches: of a panel, and of a row where an axis counts rows."""
CONTOUR = "#222222"
"""Contours lie on colors, not on the page."""
Sharing = Literal["all", "row", "col"] | bool


def draw(chart: Chart, dark: bool = False) -> Figure:
    """Return the chart as a figure, for print or for a dark page."""
    columns = 2 if len(chart.panels) == 4 else min(len(chart.panels), chart.columns)
    rows = -(-len(chart.panels) // columns)
    named = max(len(panel.y.names) for panel in chart.panels)
    height = 1.3 + ROW_HEIGHT * named if named else PANEL_HEIGHT
    width = (PANEL_WIDTH if len(chart.panels) > 1 else 1.4 * PANEL_WIDTH) * columns
    if len(chart.panels) == 1 and not named:
        height *= 1.25
    height = height * rows + 0.35 * bool(chart.title) + 0.2 * bool(chart.note)
    with style(dark):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)  # type: ignore[union-attr,call-arg]
        inside = figure.add_subfigure(
            figure.add_gridspec()[0]
        )  # its legend stands above the note, which is the figure's
        _panels(inside, chart, rows, columns)
        lines = _legend(inside, chart, width)
        figure.set_size_inches(width, height + ENTRY_HEIGHT * lines)
        if chart.title:
            figure.suptitle(fill(chart.title, round(LETTERS * width)))
        if chart.note:
            note = fill(chart.note, round(1.5 * LETTERS * width))
            figure.supxlabel(note, fontsize=7.5, color=faint())
    return figure


def _panels(figure: SubFigure, chart: Chart, rows: int, columns: int) -> None:
    """Draw every panel; axes that show the same are shared, and labeled once."""
    share_x, share_y = _shared([panel.x for panel in chart.panels], 1), _shared_rows(chart.panels, columns)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y)
    axes = list(grid.flat)
    for at in axes[len(chart.panels) :]:
        at.set_axis_off()
    drawn = [_panel(at, panel) for at, panel in zip(axes, chart.panels, strict=False)]
    for number, (at, panel) in enumerate(zip(axes, chart.panels, strict=False)):
        lowest = not share_x or number + columns >= len(chart.panels)
        _axis(at, panel.x, "x", lowest)
        _axis(at, panel.y, "y", not share_y or number % columns == 0)
    _color_bars(figure, axes, chart.panels, drawn)


def _shared(axes: Sequence[Axis], least: int) -> Sharing:
    return "all" if len(axes) > least and len(set(axes)) == 1 and not axes[0].names else False


def _shared_rows(panels: Sequence[Panel], columns: int) -> Sharing:
    y = [panel.y for panel in panels]
    each = [_shared(y[k : k + columns], 0) for k in range(0, len(y), columns)]
    return _shared(y, 1) or ("row" if columns > 1 and all(each) else False)


def _panel(at: Axes, panel: Panel) -> QuadContourSet | None:
    for number, (low, high) in enumerate(panel.beyond):
        label = "too far beyond the fitted runs" if not number else None
        at.axvspan(low, high, color=faint(), alpha=0.12, linewidth=0, zorder=0, label=label)
    filled = None if panel.field is None else _field(at, panel.field)
    if panel.bars is not None:
        _bars(at, panel.bars)
    for number, series in enumerate(panel.series):
        _series(at, series, MARKERS[(number if series.marker is None else series.marker) % len(MARKERS)])
    for mark in panel.marks:
        line = at.axvline if mark.across == "x" else at.axhline
        color = of_kind(mark.kind) if mark.kind else faint()
        line(mark.at, color=color, linewidth=0.9, linestyle=":", zorder=1, label=mark.label or None)
    at.set_title(panel.title)
    return filled


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


def _field(at: Axes, field: Field) -> QuadContourSet:
    values = np.ma.masked_invalid(field.z)
    where = field.x, field.y, values
    colors = of_contours(field.levels, field.diverging)  # every step looks as large
    filled = at.contourf(*where, levels=field.levels, colors=colors, extend="both", alpha=0.9, zorder=0)
    lines: dict[str, Any] = {"colors": [CONTOUR], "linestyles": "solid", "zorder": 1}
    at.contour(*where, levels=field.levels, linewidths=0.5, alpha=0.6, **lines)
    if field.diverging and values.min() < 0 < values.max():
        at.contour(*where, levels=[0.0], linewidths=1.8, **lines)
    if field.known is not None and not field.known.all():
        outside = np.where(field.known, 0.0, 1.0)
        at.contourf(field.x, field.y, outside, levels=[0.5, 1.5], colors="none", hatches=["////"], zorder=1)
    at.grid(visible=False)
    return filled


def _color_bars(
    figure: SubFigure, axes: Sequence[Axes], panels: Sequence[Panel], drawn: Sequence[QuadContourSet | None]
) -> None:
    """Draw one color bar for all panels where they show the same on one scale, or else one for each."""
    scales = {(panel.field.levels, panel.field.label) for panel in panels if panel.field is not None}
    if len(scales) == 1 and len(panels) > 1 and drawn[0] is not None and panels[0].field is not None:
        _color_bar(figure, list(axes), panels[0].field, drawn[0])
        return
    for at, panel, filled in zip(axes, panels, drawn, strict=False):
        if panel.field is not None and filled is not None:
            _color_bar(figure, [at], panel.field, filled)


def _color_bar(figure: SubFigure, axes: list[Axes], field: Field, filled: QuadContourSet) -> None:
    bar = figure.colorbar(filled, ax=axes, pad=0.02, aspect=28)
    bar.set_label(field.label, fontsize=8)
    bar.ax.tick_params(labelsize=7, which="both", length=0)
    bar.set_ticks(list(field.levels), minor=False)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    write = "{:+g}" if field.diverging else "{:g}"
    plain = FuncFormatter(lambda value, _: write.format(value).replace("-", "\u2212") if value else "0")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(_size) if field.sizes else plain)


def _bars(at: Axes, bars: Bars) -> None:
    left, page = np.zeros(len(bars.shares)), at.get_facecolor()
    for number, (label, part) in enumerate(zip(bars.labels, bars.shares.T, strict=True)):
        drawn = at.barh(
            np.arange(len(part)), part, left=left, height=0.6, color=of_kind(number + 1), label=label
        )
        texts = [f"{100 * share:.0f} %" if share >= 0.06 else "" for share in part]
        at.bar_label(drawn, texts, label_type="center", fontsize=7.5, color=page, fontweight="bold")
        left += part


def _axis(at: Axes, axis: Axis, which: Literal["x", "y"], labeled: bool) -> None:
    if axis.names:
        at.set_yticks(range(len(axis.names)), list(axis.names))
        at.set_ylim(len(axis.names) - 0.4, -0.6)
        at.grid(visible=False, axis="y")
        return
    own = at.xaxis if which == "x" else at.yaxis
    own.set_label_text(axis.label if labeled else "")
    own.set_tick_params(which="both", **{"labelbottom" if which == "x" else "labelleft": labeled})
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


def _legend(figure: SubFigure, chart: Chart, width: float) -> int:
    """Draw one legend for all panels, in an empty place of the grid or below; return its lines below."""
    panels, spare = figure.axes[: len(chart.panels)], figure.axes[len(chart.panels) :]
    each = chain.from_iterable(zip(*at.get_legend_handles_labels(), strict=True) for at in panels)
    found: dict[str, Any] = {}
    for handle, text in each:
        found.setdefault(text, handle)
    if not found:
        return 0
    empty = next((at for at in spare if not at.axison), None)
    if empty is not None:
        empty.legend(found.values(), found, loc="center left")
        return 0
    entry = ENTRY_MARGIN + max(map(len, found)) / ENTRY_LETTERS
    columns = max(1, min(len(found), int(width / entry)))
    lines = -(-len(found) // columns)
    columns = -(-len(found) // lines)
    figure.legend(found.values(), found, loc="outside lower center", ncols=columns)
    return lines
