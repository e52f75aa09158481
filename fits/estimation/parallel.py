"""Solution of a batch of problems in parts, in this process or on an executor."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fits.estimation.levenberg_marquardt import Array, BatchProblem, Minimum
from fits.estimation.model import Model

Solve = Callable[[BatchProblem, Array], Minimum]
MAX_MEMBERS = 128
MAX_JACOBIAN_ELEMENTS = 4e6
"""Largest number of members solved in one batch, and of elements of their Jacobians, to limit memory."""


def solve_in_parts(
    model: Model,
    problem: BatchProblem,
    start: Array,
    solver: Solve,
    executor: Executor | None = None,
    members_per_task: int = MAX_MEMBERS,
) -> Minimum:
    """Solve a batch in parts.

    The result does not depend on the executor.

    Args:
        model: Evaluates the problem.
        problem: The batch; its ``evaluate`` is replaced by that of the model.
        start: Start of every member, (b, p).
        solver: Solves one part from its starts.
        executor: Runs the parts in threads, processes or on machines.
        members_per_task: Largest number of members in a task of the executor.
    """
    most = MAX_MEMBERS if executor is None else members_per_task
    width = int(np.clip(MAX_JACOBIAN_ELEMENTS / (len(model.rows) * model.size), 1, most))
    parts = [np.arange(i, min(i + width, len(start))) for i in range(0, len(start), width)]
    bare = replace(problem, evaluate=_unset_evaluate)  # the model is pickled once with each part, not twice
    problems = [
        replace(
            bare,
            observed=problem.rows(problem.observed, part),
            weight=problem.rows(problem.weight, part),
            center=problem.rows(problem.center, part),
        )
        for part in parts
    ]
    over = map if executor is None else executor.map
    solved = list(over(partial(_solve_part, model, solver), parts, problems, [start[part] for part in parts]))
    return Minimum(
        theta=np.concatenate([part.theta for part in solved]),
        objective=np.concatenate([part.objective for part in solved]),
        converged=np.concatenate([part.converged for part in solved]),
        iterations=max(part.iterations for part in solved),
    )


def _solve_part(
    model: Model, solver: Solve, part: NDArray[np.intp], problem: BatchProblem, start: Array
) -> Minimum:
    def evaluate(theta: Array, members: NDArray[np.intp]) -> tuple[Array, Array]:
        return model.evaluate(theta, part[members])

    return solver(replace(problem, evaluate=evaluate), start)


def _unset_evaluate(theta: Array, members: NDArray[np.intp]) -> tuple[Array, Array]:
    raise NotImplementedError
