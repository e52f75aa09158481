"""Refits that leave blocks of runs out, all blocks of a law in one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fits.estimation.bootstrap import refit
from fits.estimation.estimate import Estimate
from fits.estimation.huber import row_information
from fits.estimation.joint import conditional_model
from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import Model, Rows
from scaling.laws import AnySupervisedLaw, coefficients


class BlockPredictions(NamedTuple):
    """Predictions of the distillations by refits without a block of runs, on the scale of the fit."""

    predicted: Array
    """(blocks, distillations)"""
    variance: Array
    """(blocks, distillations): of the prediction, from the uncertainty of the law's coefficients."""
    observed: Array
    """(distillations,)"""
    noise: Array
    """(distillations,): standard deviation of a run around the law, from all runs."""


def predict_left_out(
    estimates: Mapping[str, Estimate], rows: Rows, out: NDArray[np.bool_]
) -> dict[str, BlockPredictions]:
    """Refit every law without each block of rows, from its estimate on all rows.

    A law that is conditional on the supervised law of the first estimate is conditional on the refitted one.
    The noise and the priors stay those of all rows.

    Args:
        estimates: By law, as :func:`fits.estimation.joint.fit_laws` returns them.
        rows: The rows that were fitted.
        out: (blocks, rows): which rows each refit leaves out.
    """
    n = rows.n_supervised
    found: dict[str, BlockPredictions] = {}
    given: AnySupervisedLaw | None = None
    for law, estimate in estimates.items():
        model = estimate.model if given is None else conditional_model(estimate.model, given)
        mine = slice(0, n) if model.law is None else slice(len(rows) - len(model.rows), None)
        kept = (~out[:, mine]).astype(np.float64)
        theta = refit(estimate, model, kept * estimate.problem.weight).theta
        if given is None and model.given_law is None:
            refitted = model.laws(theta)[0]
            given = type(refitted)(**{name: np.ravel(each) for name, each in coefficients(refitted).items()})
        if model.law is not None:
            found[law] = _predictions(estimate, model, theta, kept)
    return found


def _predictions(estimate: Estimate, model: Model, theta: Array, kept: Array) -> BlockPredictions:
    """Return the predictions of refits at ``theta`` (blocks, p) to the rows ``kept`` (blocks, n)."""
    predicted, jacobian = model.evaluate(theta, np.arange(len(theta)))
    scaled = jacobian * np.sqrt(kept * row_information(estimate.problem.delta, estimate.sigma))[:, None, :]
    information = np.matmul(scaled, scaled.swapaxes(1, 2)) + np.diag(estimate.problem.precision)
    covariance = np.linalg.pinv(information, hermitian=True)
    variance = np.einsum("bpn,bpq,bqn->bn", jacobian, covariance, jacobian, optimize=True)
    n = model.rows.n_supervised
    return BlockPredictions(predicted[:, n:], variance[:, n:], model.observed[n:], estimate.sigma[n:])
