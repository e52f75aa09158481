"""A batch solved in parts, here or wherever an executor runs things: starts and draws alike."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fits.estimation.levenberg_marquardt import Array, Minimum, Problem
from fits.estimation.model import Model

Solve = Callable[[Problem, Array], Minimum]
LARGEST = 128
NUMBERS = 4e6
"""Members solved together, and numbers in their Jacobians: what the cache and the memory hold."""


def solve(
    model: Model,
    problem: Problem,
    start: Array,
    how: Solve,
    executor: Executor | None = None,
    spread: int = LARGEST,
) -> Minimum:
    """``how(problem, start)``, in parts of at most ``spread`` members with an executor; ``model`` evaluates.

    What comes back does not depend on the executor.
    """
    most = LARGEST if executor is None else spread
    width = int(np.clip(NUMBERS / (len(model.rows) * model.size), 1, most))
    parts = [np.arange(i, min(i + width, len(start))) for i in range(0, len(start), width)]
    bare = replace(problem, evaluate=_nothing)  # a bound method of the model would be sent with every part
    problems = [
        replace(
            bare,
            observed=problem.rows(problem.observed, part),
            weight=problem.rows(problem.weight, part),
            centre=problem.rows(problem.centre, part),
        )
        for part in parts
    ]
    over = map if executor is None else executor.map
    solved = list(over(partial(_solve, model, how), parts, problems, [start[part] for part in parts]))
    return Minimum(
        theta=np.concatenate([part.theta for part in solved]),
        objective=np.concatenate([part.objective for part in solved]),
        converged=np.concatenate([part.converged for part in solved]),
        iterations=max(part.iterations for part in solved),
    )


def _solve(model: Model, how: Solve, part: NDArray[np.intp], problem: Problem, start: Array) -> Minimum:
    def evaluate(theta: Array, members: NDArray[np.intp]) -> tuple[Array, Array]:
        return model.evaluate(theta, part[members])

    return how(replace(problem, evaluate=evaluate), start)


def _nothing(theta: Array, members: NDArray[np.intp]) -> tuple[Array, Array]:
    raise NotImplementedError
