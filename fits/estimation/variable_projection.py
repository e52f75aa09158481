"""Starts of the supervised law by variable projection.

At given exponents ``L = E + e^a n^-s + e^b d^-t`` (n and d counted from the centre of the runs) is linear in
its three amplitudes, so what a search has to explore is a map of two exponents, not a space of five
coordinates. The map is computed at a grid of pairs, by least squares; every pair is a start, goes downhill
from pair to pair, and the few pairs where that ends are what the objective itself is minimised from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fits.estimation.levenberg_marquardt import Array, Problem
from fits.estimation.model import Model

AMPLITUDES = ("supervised ln E", "supervised a", "supervised b")
SLOPES = ("supervised ln gamma*alpha", "supervised ln gamma*beta")
REACH = 2.0
"""How far the grid reaches, in widths of the priors of both exponents."""


def projects(model: Model) -> bool:
    """Whether the model is the supervised law alone, with three free amplitudes and gamma = 1."""
    return model.names == (*AMPLITUDES, *SLOPES) and model.fixed.get("supervised ln gamma") == 0.0


def basins(model: Model, problem: Problem, starts: int) -> tuple[Array, NDArray[np.intp]]:
    """Where at least ``starts`` pairs of exponents go downhill: points (k, 5), and how many pairs go to each.

    ``problem`` gives the weights of the rows, the bounds and the priors.
    """
    side = max(int(np.ceil(np.sqrt(starts))), 1)
    centre, width = model.prior()
    steps = np.linspace(-REACH, REACH, side) if side > 1 else np.zeros(1)
    exponent = np.clip(centre[3:] + steps[:, None] * width[3:], problem.lower[3:], problem.upper[3:])
    s, t = (axis.ravel() for axis in np.meshgrid(*exponent.T, indexing="ij"))
    ln_n, ln_d = np.log(model.rows.N) - model.centre.ln_N, np.log(model.rows.D) - model.centre.ln_D
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
    height = np.sum(missed**2, axis=1) + np.sum(problem.precision * (theta - problem.centre[0]) ** 2, axis=1)
    end, count = np.unique(_downhill(height.reshape(side, side)), return_counts=True)
    return theta[end], count


def _downhill(height: Array) -> NDArray[np.intp]:
    """The cell (of the ravelled map) where each cell's way from lowest neighbour to lowest neighbour ends."""
    cell = np.pad(np.arange(height.size).reshape(height.shape), 1, mode="edge")
    rows, columns = height.shape
    around = np.stack([cell[i : i + rows, j : j + columns] for i in range(3) for j in range(3)])
    lowest = np.argmin(height.ravel()[around], axis=0)
    end = np.take_along_axis(around, lowest[None], axis=0)[0].ravel()
    while (end != end[end]).any():
        end = end[end]
    return np.asarray(end)
