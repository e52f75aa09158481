"""Starts of the supervised law by variable projection.

At given exponents ``L = E + e^a n^-s + e^b d^-t`` (n and d counted from the center of the runs) is linear in
its three amplitudes, so that a search has two dimensions, the exponents, instead of five. The amplitudes are
solved by least squares at a grid of pairs of exponents; the local minima on the grid are the starts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fits.estimation.levenberg_marquardt import Array, BatchProblem
from fits.estimation.model import Model

AMPLITUDES = ("supervised ln E", "supervised a", "supervised b")
SLOPES = ("supervised ln gamma*alpha", "supervised ln gamma*beta")
GRID_HALF_WIDTH = 2.0
"""Half width of the grid, in standard deviations of the priors of both exponents."""


def is_projectable(model: Model) -> bool:
    """Return True if the model is the supervised law alone, with three free amplitudes and gamma = 1."""
    return model.names == (*AMPLITUDES, *SLOPES) and model.fixed.get("supervised ln gamma") == 0.0


def projected_starts(model: Model, problem: BatchProblem, starts: int) -> tuple[Array, NDArray[np.intp]]:
    """Return local minima (k, 5) of the projected grid, and the number of grid pairs that descend to each.

    The grid has at least ``starts`` pairs of exponents; ``problem`` gives the weights of the rows, the bounds
    and the priors.
    """
    side = max(int(np.ceil(np.sqrt(starts))), 1)
    center, width = model.prior()
    steps = np.linspace(-GRID_HALF_WIDTH, GRID_HALF_WIDTH, side) if side > 1 else np.zeros(1)
    exponent = np.clip(center[3:] + steps[:, None] * width[3:], problem.lower[3:], problem.upper[3:])
    s, t = (axis.ravel() for axis in np.meshgrid(*exponent.T, indexing="ij"))
    ln_n, ln_d = np.log(model.rows.N) - model.center.ln_N, np.log(model.rows.D) - model.center.ln_D
    terms = np.stack(
        [
            np.ones((len(s), len(ln_n))),
            np.exp(-np.exp(s)[:, None] * ln_n),
            np.exp(-np.exp(t)[:, None] * ln_d),
        ],
        axis=1,
    )
    scale = np.sqrt(problem.weight[0]) / (1.0 if model.in_nats else model.rows.L)
    terms, target = terms * scale, model.rows.L * scale
    normal, right = terms @ terms.transpose(0, 2, 1), terms @ target
    ridge = 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    amplitude = np.linalg.solve(normal + ridge, right[:, :, None])[:, :, 0]
    theta = np.column_stack([np.log(np.maximum(amplitude, 1e-6)), s, t])
    theta = np.clip(theta, problem.lower, problem.upper)
    missed = target - np.matmul(np.exp(theta[:, None, :3]), terms)[:, 0]
    height = np.sum(missed**2, axis=1) + np.sum(problem.precision * (theta - problem.center[0]) ** 2, axis=1)
    end, count = np.unique(_local_minimum_of_each_cell(height.reshape(side, side)), return_counts=True)
    return theta[end], count


def _local_minimum_of_each_cell(height: Array) -> NDArray[np.intp]:
    """Return, for each cell, the flat index of the local minimum that steepest descent reaches from it."""
    cell = np.pad(np.arange(height.size).reshape(height.shape), 1, mode="edge")
    rows, columns = height.shape
    around = np.stack([cell[i : i + rows, j : j + columns] for i in range(3) for j in range(3)])
    lowest = np.argmin(height.ravel()[around], axis=0)
    end = np.take_along_axis(around, lowest[None], axis=0)[0].ravel()
    while (end != end[end]).any():
        end = end[end]
    return np.asarray(end)
