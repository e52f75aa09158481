"""Which size and which budget: the outer choices around a loss that is already optimal inside.

The inner problem says how low the loss of a student of given size gets on a given budget. Either of the two
may be left open: the size is then the one of least loss, or of least cost for a target.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scaling.grid_search import first_reaching, minimise
from scaling.planner.optimizer import Effort

Array = NDArray[np.float64]
LossAt = Callable[[Array, Array], Array]
"""Loss by parameters and budget, both (P, K)."""

SIZES, QUICK_SIZES = Effort(32, 24, 3), Effort(16, 8, 3)
"""How finely the student's size is searched: to 0.01 %, and to 1 % for its spread over many draws."""
LARGEST_BUDGET = 1e36
"""FLOPs; no larger one is asked for, or searched for a target."""
LN_LARGEST_BUDGET = math.log(LARGEST_BUDGET)


def choose(
    loss_at: LossAt,
    rows: int,
    sizes: tuple[float, float],
    budget: float | Array | None,
    target: float | None,
    effort: Effort = SIZES,
) -> tuple[Array, Array]:
    """Parameters and budget of every row, shape (P, 1) each.

    ``sizes`` bounds the parameters; equal bounds fix them. ``budget`` is one for all or one a row. With a
    ``target``, the budget is the least that reaches it, and inf where none does.
    """
    low, high = (np.full((rows, 1), math.log(size)) for size in sizes)
    free = sizes[0] < sizes[1]
    if target is None:
        cost = np.broadcast_to(np.asarray(budget, dtype=np.float64).reshape(-1, 1), (rows, 1))
        if not free:
            return np.full((rows, 1), sizes[0]), cost
        best = minimise(
            lambda size: loss_at(np.exp(size), cost + np.zeros_like(size)), low, high, **effort._asdict()
        )
        return np.exp(best), cost
    goal = target

    def needed(size: Array) -> Array:
        ends = np.log(np.exp(size)), np.full_like(size, LN_LARGEST_BUDGET)
        return first_reaching(lambda cost: loss_at(np.exp(size), np.exp(cost)), goal, *ends)

    if not free:
        return np.full((rows, 1), sizes[0]), np.exp(needed(low))
    best = minimise(needed, low, high, **effort._asdict())
    return np.exp(best), np.exp(needed(best))
