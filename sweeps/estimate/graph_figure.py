"""Figure of a sweep's steps: columns of steps, each right of what it needs; many steps are folded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from matplotlib.collections import PathCollection
from matplotlib.path import Path

from scaling.figures.figure import Figure
from scaling.figures.style import MARKERS, faint, of_kind, style
from sweeps.dag.kind import kind_label
from sweeps.estimate.graph import GraphNode, layout

FIRST_KINDS = ("pretrain", "distil", "trunk")
"""Kinds of steps that have the first colors and markers; others have the next ones."""
MAX_STEPS = 100
"""Largest number of steps that are drawn one by one."""
FOLDS = (re.compile(r" on [^,]+|, seed \d+"), re.compile(r" .*"))
"""Parts of labels that steps folded into one may differ in: tokens and seeds, else all but the kind."""
LETTER, GAP, ROW = 0.062, 0.55, 0.21
"""Inches: of a letter of a label, between columns for the lines, and of a row."""
LINE, LINES = 56, 3
"""Letters of a line of a label, and lines of a label, at most."""


def draw_graph(nodes: Sequence[GraphNode], dark: bool = False) -> Figure:
    """Draw the steps in columns, each right of its dependencies; filled if done.

    Beyond ``MAX_STEPS``, steps that differ in tokens and seed alone are drawn as one.
    """
    shown, counts = folded(nodes)
    places, labels = layout(shown), {node.id: _label(node, counts) for node in shown}
    x, y, width, height = _positions(places, labels)
    with style(dark):
        figure = Figure(figsize=(width, height + 1.0), layout="constrained")
        axes = figure.add_subplot()
        axes.add_collection(_lines(shown, x, y, labels))
        kinds = {node.kind for node in shown}
        for number, kind in enumerate([*FIRST_KINDS, *sorted(kinds.difference(FIRST_KINDS))]):
            if kind not in kinds:
                continue
            marker = MARKERS[number % len(MARKERS)]
            look: dict[str, Any] = {"marker": marker, "s": 24, "edgecolors": of_kind(number + 1)}
            own = [node for node in shown if node.kind == kind]
            faces = [of_kind(number + 1) if node.done else axes.get_facecolor() for node in own]
            axes.scatter(
                [x[node.id] for node in own], [y[node.id] for node in own], c=faces, zorder=3, **look
            )
            axes.scatter([], [], color=of_kind(number + 1), label=kind_label(kind), **look)
        page = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
        for node in shown:
            axes.text(
                x[node.id] + 0.09, y[node.id], labels[node.id], va="center", fontsize=7, bbox=page, zorder=2
            )
        done = sum(node.done for node in nodes)
        groups = f" in {len(shown)} groups" if len(shown) < len(nodes) else ""
        axes.set(title=f"{len(nodes)} steps{groups}, {done} done (filled)")
        axes.set(xlim=(-0.1, width), ylim=(height, 0.0))
        axes.set_axis_off()
        figure.legend(loc="outside lower center", ncols=6)
    return figure


def folded(nodes: Sequence[GraphNode]) -> tuple[list[GraphNode], Mapping[str, tuple[int, int]]]:
    """Return the nodes to draw, and by the id of each that stands for several how many are done, of how many.

    A group is named after its first step, and done when all of its steps are.
    """
    if len(nodes) <= MAX_STEPS:
        return list(nodes), {}
    for differing in FOLDS:
        label = {node.id: differing.sub("", node.label) for node in nodes}
        if len(set(label.values())) <= MAX_STEPS:
            break
    first: dict[str, str] = {}
    group = {node.id: first.setdefault(label[node.id], node.id) for node in nodes}
    total = Counter(group[node.id] for node in nodes)
    done = Counter(group[node.id] for node in nodes if node.done)
    needs: dict[str, dict[str, None]] = {each: {} for each in total}
    for node in nodes:
        own = group[node.id]
        needs[own] |= {group[need]: None for need in node.needs if group.get(need, own) != own}
    shown = [
        GraphNode(
            id=node.id, kind=node.kind, label=label[node.id], needs=tuple(needs[node.id]),
            done=done[node.id] == total[node.id],
        )
        for node in nodes
        if node.id in total
    ]  # fmt: skip
    return _needed_first(shown), {each: (done[each], total[each]) for each in total}


def _needed_first(nodes: Sequence[GraphNode]) -> list[GraphNode]:
    """Return groups after all that they need, as far as they do not need each other."""
    found: dict[str, GraphNode] = {}
    waiting = {node.id: node for node in nodes}
    while waiting:
        ready = [node for node in waiting.values() if not any(need in waiting for need in node.needs)]
        for node in ready or list(waiting.values())[:1]:
            found[node.id] = waiting.pop(node.id)
    return list(found.values())


def _label(node: GraphNode, counts: Mapping[str, tuple[int, int]]) -> str:
    """Return the label of a step in lines; what no line has room for is cut."""
    done, total = counts.get(node.id, (0, 0))
    text = f"{node.label}: {done} of {total}" if node.id in counts else node.label
    return "\n".join(wrap(text, LINE, max_lines=LINES, placeholder=" ...")) if len(text) > LINE else text


def _letters(label: str) -> int:
    """Return the letters of the longest line of a label."""
    return max(map(len, label.split("\n")))


def _positions(
    places: Mapping[str, tuple[int, int]], labels: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, float], float, float]:
    """Return x and y of every step, and the size of all, in inches; every column fills the height."""
    rows = Counter(column for column, _ in places.values())
    widest = [
        max(_letters(labels[each]) for each, (at, _) in places.items() if at == k) for k in range(len(rows))
    ]
    left = [sum(LETTER * letters + GAP for letters in widest[:k]) for k in range(len(rows) + 1)]
    lines = dict.fromkeys(rows, 0.0)
    for each, (column, _) in places.items():
        lines[column] += 1.0 + 0.6 * labels[each].count("\n")
    height = max(1.5, ROW * max(lines.values()))
    x = {each: left[column] for each, (column, _) in places.items()}
    y = {each: height * (row - 0.5) / rows[column] for each, (column, row) in places.items()}
    return x, y, left[-1], height


def _lines(
    nodes: Sequence[GraphNode], x: Mapping[str, float], y: Mapping[str, float], labels: Mapping[str, str]
) -> PathCollection:
    """Return curves from the end of the label of what is needed to what needs it."""
    curves = []
    for node in nodes:
        for need in direct_needs(node, {each.id: each for each in nodes}):
            start, end = x[need] + 0.12 + 0.9 * LETTER * _letters(labels[need]), x[node.id] - 0.06
            bend = max(0.3 * GAP, 0.3 * (end - start))
            points = [(start, y[need]), (start + bend, y[need]), (end - bend, y[node.id]), (end, y[node.id])]
            curves.append(Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]))
    return PathCollection(curves, facecolors="none", edgecolors=faint(), alpha=0.45, linewidths=0.6, zorder=1)


def direct_needs(node: GraphNode, by_id: Mapping[str, GraphNode]) -> list[str]:
    """Return the needs of a step that none of its other needs already has behind it."""
    known = [need for need in node.needs if need in by_id]
    behind: set[str] = set()
    waiting = [deeper for need in known for deeper in by_id[need].needs if deeper in by_id]
    while waiting:
        each = waiting.pop()
        if each not in behind:
            behind.add(each)
            waiting += [deeper for deeper in by_id[each].needs if deeper in by_id]
    return [need for need in known if need not in behind] or known
