"""Graph of a sweep's steps: its layout, and as a text tree; ``graph_figure.py`` draws it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
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

SUFFIXES = (".png", ".svg", ".pdf", ".txt")


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
        from sweeps.estimate.graph_figure import draw_graph

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
        from sweeps.estimate.graph_figure import draw_graph

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
    """Return column and row of each step; the column is one right of its dependencies.

    Within a column, steps stand in the order of what they need, so that few lines cross.
    """
    each, found = list(nodes), dict[str, tuple[int, int]]()
    column: dict[str, int] = {}
    for node in each:
        column[node.id] = 1 + max((column[need] for need in node.needs if need in column), default=-1)
    for k in range(1 + max(column.values(), default=-1)):
        own = [node for node in each if column[node.id] == k]
        of_column = sorted(own, key=lambda node: _mean_row(node, found))
        found |= {node.id: (k, row) for row, node in enumerate(of_column, start=1)}
    return found


def _mean_row(node: GraphNode, found: Mapping[str, tuple[int, int]]) -> float:
    rows = [found[need][1] for need in node.needs if need in found]
    return sum(rows) / len(rows) if rows else 0.0
