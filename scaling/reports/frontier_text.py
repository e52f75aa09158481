"""Plans over a range of budgets, as wide as the terminal: crossovers, losses by budget, warnings."""

from __future__ import annotations

from collections.abc import Sequence

from scaling.frontiers.frontier import Frontier
from scaling.reports.plan_text import folded_table, wrapped


def frontier_text(found: Frontier, extra: Sequence[str] = (), width: int = 80) -> str:
    """Return a frontier in lines of at most ``width`` columns, its ways in several tables where they must be.

    Args:
        found: The best losses over the budgets.
        extra: Further notes, one a line.
        width: Columns of the terminal.
    """
    foot = ["losses in nats/token with 90 % intervals", *found.notes(), *extra]
    blocks = [
        wrapped(found.findings, width, "  "),
        wrapped([found.asked], width, "  "),
        folded_table(*found.table(), width),
        wrapped(foot, width, "  "),
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"
