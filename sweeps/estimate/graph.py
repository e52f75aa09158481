"""A sweep's steps and what each needs, drawn or written as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.errors import InputError
from sweeps.dag.expand import Dag

if TYPE_CHECKING:
    from scaling.figures.figure import Figure
    from sweeps.watch.status import Status

KINDS = ("pretrain", "distil", "trunk")
"""Kinds of steps with a colour of their own, in its order; all others share the next."""
SUFFIXES = (".png", ".svg", ".pdf", ".txt")
LABELLED = 300
"""Up to so many steps have their label beside them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A step as a picture needs it."""

    id: str
    kind: str
    label: str
    needs: tuple[str, ...]
    done: bool


def nodes_of(dag: Dag, done: set[str]) -> list[Node]:
    """The steps of a spec."""
    return [
        Node(
            id=step.id, kind=step.kind, label=step.label, needs=tuple(need.id for need in step.needs),
            done=step.id in done,
        )
        for step in dag.steps
    ]  # fmt: skip


def nodes_in(status: Status) -> list[Node]:
    """The steps of the sweep last started in a store."""
    return [
        Node(id=step.id, kind=step.kind, label=step.label, needs=step.needs, done=step.state == "done")
        for step in status.steps
    ]


def draw(dag: Dag, done: set[str], path: Path) -> None:
    """Draw ``dag`` into a picture, or write it as a tree of text, by the suffix of ``path``.

    Raises:
        InputError: for another suffix, or a place that cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"--graph: {path} must end in {', '.join(SUFFIXES)}")
    if path.suffix != ".txt":
        picture(nodes_of(dag, done)).write(path, "--graph:")
        return
    try:
        path.write_text("\n".join(tree(dag, done)) + "\n")
    except OSError as error:
        raise InputError(f"--graph: {path} cannot be written ({error.strerror or error})") from None


def tree(dag: Dag, done: set[str]) -> Iterator[str]:
    """A line a step, below the last of the steps that it needs; done steps are ticked."""
    nodes = nodes_of(dag, done)
    below: dict[str | None, list[Node]] = {}
    place = {node.id: number for number, node in enumerate(nodes)}
    for node in nodes:
        last = max(node.needs, key=lambda need: place.get(need, -1), default=None)
        below.setdefault(last, []).append(node)

    def lines(parent: str | None, depth: int) -> Iterator[str]:
        for node in below.get(parent, []):
            yield f"{'  ' * depth}{'✔' if node.done else '·'} {node.id[:8]}  {node.label}"
            yield from lines(node.id, depth + 1)

    yield from lines(None, 0)


def columns(nodes: Iterable[Node]) -> dict[str, tuple[int, int]]:
    """Where each step stands: its column, one behind what it needs, and its row."""
    found: dict[str, tuple[int, int]] = {}
    heights: dict[int, int] = {}
    for node in nodes:
        column = 1 + max((found[need][0] for need in node.needs if need in found), default=-1)
        heights[column] = heights.get(column, 0) + 1
        found[node.id] = column, heights[column]
    return found


def picture(nodes: Sequence[Node], dark: bool = False) -> Figure:
    """The steps in columns, each behind what it needs; filled when done."""
    from matplotlib.collections import LineCollection

    from scaling.figures.figure import Figure
    from scaling.figures.style import MARKERS, faint, of_kind, style

    places = columns(nodes)
    last, rows = (max(place[side] for place in places.values()) for side in (0, 1))
    with style(dark):
        figure = Figure(figsize=(2 + 2.8 * (1 + last), max(2.5, 0.26 * rows + 0.6)), layout="constrained")
        axes = figure.add_subplot()
        lines = [(places[need], places[node.id]) for node in nodes for need in node.needs if need in places]
        axes.add_collection(LineCollection(lines, colors=faint(), alpha=0.3, linewidths=0.6, zorder=1))
        for kind in sorted({node.kind for node in nodes}):
            number = KINDS.index(kind) if kind in KINDS else len(KINDS)
            colour, marker = of_kind(number + 1), MARKERS[number]
            own = [node for node in nodes if node.kind == kind]
            faces = [colour if node.done else "none" for node in own]
            x, y = zip(*(places[node.id] for node in own), strict=True)
            axes.scatter(x, y, s=26, c=faces, edgecolors=colour, marker=marker, zorder=2)
            axes.scatter([], [], s=26, c=colour, marker=marker, label=kind)
        if len(nodes) <= LABELLED:
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
