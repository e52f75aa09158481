"""Graph of a sweep's steps, drawn or written as a text tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.errors import InputError
from scaling.figures.accessor import Plots
from sweeps.dag.expand import Dag

if TYPE_CHECKING:
    from scaling.figures.figure import Figure
    from sweeps.estimate.plan import SweepPlan
    from sweeps.watch.status import Status

COLORED_KINDS = ("pretrain", "distil", "trunk")
"""Kinds of steps with their own color, in the order of colors; all others share the next."""
SUFFIXES = (".png", ".svg", ".pdf", ".txt")
MAX_LABELS = 300
"""Largest number of steps that are drawn with labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphNode:
    """Step in a graph."""

    id: str
    kind: str
    label: str
    needs: tuple[str, ...]
    done: bool


class SweepPlanPlots(Plots):
    """The figures of one plan of a sweep."""

    main = "graph"
    result: SweepPlan

    def graph(self) -> Figure:
        """Draw the steps in columns, each behind what it needs; filled when done."""
        return draw_graph(nodes_of_dag(self.result.dag, self.result.done), self.dark)


def nodes_of_dag(dag: Dag, done: Set[str]) -> list[GraphNode]:
    """Return the steps of a spec."""
    return [
        GraphNode(
            id=step.id, kind=step.kind, label=step.label, needs=tuple(need.id for need in step.needs),
            done=step.id in done,
        )
        for step in dag.steps
    ]  # fmt: skip


def nodes_of_status(status: Status) -> list[GraphNode]:
    """Return the steps of the sweep last started in a store."""
    return [
        GraphNode(id=step.id, kind=step.kind, label=step.label, needs=step.needs, done=step.state == "done")
        for step in status.steps
    ]


def write_graph(dag: Dag, done: Set[str], path: Path) -> None:
    """Draw ``dag``, or write it as a text tree, by the suffix of ``path``.

    Raises:
        InputError: for another suffix, or a path that cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"--graph: {path} must end in {', '.join(SUFFIXES)}")
    if path.suffix != ".txt":
        draw_graph(nodes_of_dag(dag, done)).write(path, "--graph:")
        return
    try:
        path.write_text("\n".join(tree_lines(dag, done)) + "\n")
    except OSError as error:
        raise InputError(f"--graph: {path} cannot be written ({error.strerror or error})") from None


def tree_lines(dag: Dag, done: Set[str]) -> Iterator[str]:
    """Yield a line for each step, below the last of its dependencies; done steps are ticked."""
    nodes = nodes_of_dag(dag, done)
    below: dict[str | None, list[GraphNode]] = {}
    place = {node.id: number for number, node in enumerate(nodes)}
    for node in nodes:
        last = max(node.needs, key=lambda need: place.get(need, -1), default=None)
        below.setdefault(last, []).append(node)

    def lines(parent: str | None, depth: int) -> Iterator[str]:
        for node in below.get(parent, []):
            yield f"{'  ' * depth}{'✔' if node.done else '·'} {node.id[:8]}  {node.label}"
            yield from lines(node.id, depth + 1)

    yield from lines(None, 0)


def layout(nodes: Iterable[GraphNode]) -> dict[str, tuple[int, int]]:
    """Return column and row of each step; the column is one right of its dependencies."""
    found: dict[str, tuple[int, int]] = {}
    heights: dict[int, int] = {}
    for node in nodes:
        column = 1 + max((found[need][0] for need in node.needs if need in found), default=-1)
        heights[column] = heights.get(column, 0) + 1
        found[node.id] = column, heights[column]
    return found


def draw_graph(nodes: Sequence[GraphNode], dark: bool = False) -> Figure:
    """Draw the steps in columns, each right of its dependencies; filled if done."""
    from matplotlib.collections import LineCollection

    from scaling.figures.figure import Figure
    from scaling.figures.style import MARKERS, faint, of_kind, style

    places = layout(nodes)
    last, rows = (max(place[side] for place in places.values()) for side in (0, 1))
    with style(dark):
        figure = Figure(figsize=(2 + 2.8 * (1 + last), max(2.5, 0.26 * rows + 0.6)), layout="constrained")
        axes = figure.add_subplot()
        lines = [(places[need], places[node.id]) for node in nodes for need in node.needs if need in places]
        axes.add_collection(LineCollection(lines, colors=faint(), alpha=0.3, linewidths=0.6, zorder=1))
        for kind in sorted({node.kind for node in nodes}):
            number = COLORED_KINDS.index(kind) if kind in COLORED_KINDS else len(COLORED_KINDS)
            color, marker = of_kind(number + 1), MARKERS[number]
            own = [node for node in nodes if node.kind == kind]
            faces = [color if node.done else "none" for node in own]
            x, y = zip(*(places[node.id] for node in own), strict=True)
            axes.scatter(x, y, s=26, c=faces, edgecolors=color, marker=marker, zorder=2)
            axes.scatter([], [], s=26, c=color, marker=marker, label=kind)
        if len(nodes) <= MAX_LABELS:
            for node in nodes:
                axes.annotate(
                    node.label, places[node.id], (6, 0), textcoords="offset points", va="center", fontsize=7
                )
        done = sum(node.done for node in nodes)
        axes.set(title=f"{len(nodes)} steps, {done} done (filled)", xlim=(-0.3, last + 0.9))
        axes.invert_yaxis()
        axes.set_axis_off()
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
