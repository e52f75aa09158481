"""A sweep's steps and what each needs, drawn or written as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scaling.errors import InputError
from sweeps.steps import Dag, Step

COLOURS = {"pretrain": "#4c72b0", "distil": "#dd8452", "trunk": "#8c8c8c"}
OTHER = "#55a868"
SUFFIXES = (".png", ".svg", ".txt")


def draw(dag: Dag, done: set[str], path: Path) -> None:
    """Draw ``dag`` into a picture, or write it as a tree of text, by the suffix of ``path``.

    Raises:
        InputError: for another suffix, or a place that cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"--graph: {path} must end in {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".txt":
            path.write_text("\n".join(tree(dag, done)) + "\n")
        else:
            _picture(dag, done, path)
    except OSError as error:
        raise InputError(f"--graph: {path} cannot be written ({error.strerror or error})") from None


def tree(dag: Dag, done: set[str]) -> Iterator[str]:
    """A line a step, below the last of the steps that it needs; done steps are ticked."""
    below: dict[str | None, list[Step]] = {}
    place = {step.id: number for number, step in enumerate(dag.steps)}
    for step in dag.steps:
        last = max(step.needs, key=lambda need: place.get(need.id, -1), default=None)
        below.setdefault(last.id if last else None, []).append(step)

    def lines(parent: str | None, depth: int) -> Iterator[str]:
        for step in below.get(parent, []):
            yield f"{'  ' * depth}{'✔' if step.id in done else '·'} {step.id[:8]}  {step.label}"
            yield from lines(step.id, depth + 1)

    yield from lines(None, 0)


def columns(dag: Dag) -> dict[str, tuple[int, int]]:
    """Where each step stands: its column, one behind what it needs, and its row."""
    found: dict[str, tuple[int, int]] = {}
    heights: dict[int, int] = {}
    for step in dag.steps:
        column = 1 + max((found[need.id][0] for need in step.needs if need.id in found), default=-1)
        heights[column] = heights.get(column, 0) + 1
        found[step.id] = column, heights[column]
    return {step: (column, row) for step, (column, row) in found.items()}


def _picture(dag: Dag, done: set[str], path: Path) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    places = columns(dag)
    last, rows = (max(place[side] for place in places.values()) for side in (0, 1))
    width = 2 + 2.6 * (1 + last)
    figure = Figure(figsize=(width, max(2.5, 0.28 * rows)), layout="constrained")
    axes = figure.add_subplot()
    lines = [
        (places[need.id], places[step.id]) for step in dag.steps for need in step.needs if need.id in places
    ]
    axes.add_collection(LineCollection(lines, colors="0.8", linewidths=0.6, zorder=1))
    kinds = sorted({step.kind for step in dag.steps})
    for kind in kinds:
        own = [step for step in dag.steps if step.kind == kind]
        colour = COLOURS.get(kind, OTHER)
        faces = [colour if step.id in done else "white" for step in own]
        x, y = zip(*(places[step.id] for step in own), strict=True)
        axes.scatter(x, y, s=26, c=faces, edgecolors=colour, zorder=2)
        axes.scatter([], [], s=26, c=colour, label=kind)
    if len(dag.steps) <= 300:
        for step in dag.steps:
            column, row = places[step.id]
            axes.annotate(
                step.label, (column, row), (5, 0), textcoords="offset points", va="center", fontsize=5
            )
    axes.set(title=f"{len(dag.steps)} steps, {len(done)} done (filled)", xlim=(-0.3, last + 0.9))
    axes.invert_yaxis()
    axes.set_axis_off()
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=7)
    figure.savefig(path, dpi=150)
