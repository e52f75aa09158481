"""``status.plot``: the steps of a sweep, and when each attempt at them ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaling.figures.accessor import Plots
from sweeps.estimate.graph import nodes_of_status
from sweeps.store.store import Store
from sweeps.watch.timeline import attempt_spans, timeline_chart

if TYPE_CHECKING:
    from scaling.figures.figure import Figure
    from sweeps.watch.status import Status


class StatusPlots(Plots):
    """The figures of one sweep in its store."""

    main = "graph"
    result: Status

    def graph(self) -> Figure:
        """Draw the steps in columns, each behind what it needs; filled when done."""
        from sweeps.estimate.graph_figure import draw_graph

        return draw_graph(nodes_of_status(self.result), self.dark)

    def timeline(self) -> Figure:
        """Draw when each attempt at a step ran, a row for each that ran at once.

        Raises:
            InputError: If no step has begun.
        """
        return self._draw(timeline_chart(attempt_spans(Store(self.result.store))))
