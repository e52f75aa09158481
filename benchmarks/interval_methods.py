"""Ways to make intervals, for ``interval_honesty.py``: what the product does, and what it did before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from fits import Objective, fit
from fits.estimation.estimate import fit_model
from fits.estimation.laws.parametrization import Center, SupervisedCoordinates
from fits.estimation.model import Model, Rows
from fits.table.runs import validate
from scaling.calibration.calibration import SUPERVISED, Calibration
from scaling.planner.uncertainty import Decisions, Judge

Array = NDArray[np.float64]
NORMAL = ndtri((np.arange(41) + 0.5) / 41)
"""Quantiles of a standard normal, with which draws are blurred."""
_TODAY = SupervisedCoordinates.__init__


@dataclass(frozen=True)
class Forecast:
    """Predictions of rows, as a point and as draws (draws, rows) of each law with a say, in nats/token."""

    center: Array
    draws: list[Array]
    weights: Array | None = None
    """Weights (laws, rows) of the mixture that an interval is of; without them it spans all laws."""

    def interval(self, level: float) -> tuple[Array, Array]:
        """The central interval of each row, two arrays (rows,)."""
        ends = [(1 - level) / 2, (1 + level) / 2]
        if self.weights is None or len(self.draws) == 1:
            each = [np.quantile(draws, ends, axis=0) for draws in self.draws]
            return np.min([low for low, _ in each], axis=0), np.max([high for _, high in each], axis=0)
        values = np.concatenate(self.draws)
        share = [
            np.broadcast_to(weight / len(draws), draws.shape)
            for weight, draws in zip(self.weights, self.draws, strict=True)
        ]
        order = np.argsort(values, axis=0)
        values, mass = (np.take_along_axis(x, order, axis=0) for x in (values, np.concatenate(share)))
        below = np.cumsum(mass, axis=0) - mass / 2
        found = np.array([np.interp(ends, at, of) for at, of in zip(below.T, values.T, strict=True)])
        return found[:, 0], found[:, 1]


def bootstrap(kept: pd.DataFrame, left: pd.DataFrame, supervised: Calibration | None, draws: int) -> Forecast:
    """The intervals of 0.1.0: draws of the coefficients and the residual spread; gamma decided by BIC."""
    with mock.patch.object(SupervisedCoordinates, "__init__", _as_in_0_1_0):
        gamma = "auto" if supervised is not None else _gamma_by_bic(Rows.of(validate(kept)))
        found = fit(kept, supervised=supervised, gamma=gamma, draws=draws, held_out=False).calibration
    N, D = (left[column].to_numpy(np.float64) for column in ("params", "tokens"))
    center, sampled = found.supervised.loss(N, D), found.sampled_supervised()
    spread, noise = sampled.loss(N, D), np.full(len(left), found.residual_sd.get(SUPERVISED, 0.0))
    taught = (left["kind"] == "distillation").to_numpy()
    if taught.any():
        at = N[taught], D[taught], left["teacher_loss"].to_numpy(np.float64)[taught]
        center[taught] = found.law().loss(*at, found.supervised)
        spread[:, taught] = found.sampled_law().loss(*at, sampled)
        noise[taught] = found.residual_sd[found.default or ""]
    return Forecast(center, [_blurred(spread, np.broadcast_to(noise, len(left)))])


def default(kept: pd.DataFrame, left: pd.DataFrame, supervised: Calibration | None, draws: int) -> Forecast:
    """The intervals that a plan shows under every default, of the mixture of the laws that count."""
    return _planned(fit(kept, supervised=supervised, draws=draws).calibration, left)


def span(kept: pd.DataFrame, left: pd.DataFrame, supervised: Calibration | None, draws: int) -> Forecast:
    """The default with intervals that span the laws that count instead."""
    found = fit(kept, supervised=supervised, draws=draws).calibration
    return replace(_planned(found, left), weights=None)


def first_law(kept: pd.DataFrame, left: pd.DataFrame, supervised: Calibration | None, draws: int) -> Forecast:
    """The default law's own intervals, as ``predict`` shows them."""
    return _planned(fit(kept, supervised=supervised, draws=draws).calibration, left, several=False)


def gamma_one(kept: pd.DataFrame, left: pd.DataFrame, supervised: Calibration | None, draws: int) -> Forecast:
    """The default with gamma fixed at 1."""
    gamma = "auto" if supervised is not None else 1.0
    return _planned(fit(kept, supervised=supervised, gamma=gamma, draws=draws).calibration, left)


def _planned(found: Calibration, left: pd.DataFrame, several: bool = True) -> Forecast:
    judge, rows = Judge(found), left.reset_index(drop=True)
    N, D = (rows[column].to_numpy(np.float64) for column in ("params", "tokens"))
    center = found.supervised.loss(N, D)
    noise = found.run_sd(SUPERVISED, center, N, D)
    first = _blurred(found.sampled_supervised().loss(N, D), noise)
    taught = np.flatnonzero(rows["kind"] == "distillation")
    if not len(taught):
        return Forecast(center, [first])
    L_T, nothing = rows["teacher_loss"].to_numpy(np.float64)[taught], np.full(len(taught), np.nan)
    at = N[taught], D[taught], nothing, nothing, L_T, np.zeros(len(taught), bool), N[taught], D[taught]
    outcomes = {law: judge.outcome(Decisions(*at), law) for law in found.distillation}
    center[taught] = outcomes[found.default or ""].loss
    layers = {law: first.copy() for law in outcomes}
    weights = {law: np.full(len(rows), float(law == found.default)) for law in outcomes}
    for law, outcome in outcomes.items():
        assert outcome.loss_draws is not None
        layers[law][:, taught] = _blurred(outcome.loss_draws, outcome.noise)
    for k, row in enumerate(taught):
        where = {"student_params": N[row], "student_tokens": D[row], "teacher_loss": L_T[k]}
        votes = found.votes(**where) if several else {found.default: 1.0}
        for law in outcomes:
            weights[law][row] = votes.get(law, 0.0)
            if not weights[law][row]:  # which leaves a span as it is
                layers[law][:, row] = layers[found.default or ""][:, row]
    return Forecast(center, list(layers.values()), np.array(list(weights.values())))


def _blurred(draws: Array, noise: Array) -> Array:
    """Draws (draws, rows), each spread by normal noise (rows,): (draws * 41, rows)."""
    return np.asarray((draws[:, None, :] + noise * NORMAL[:, None]).reshape(-1, draws.shape[1]))


def _as_in_0_1_0(self: SupervisedCoordinates, center: Center) -> None:
    """The coordinates with the prior of gamma centered at 1."""
    _TODAY(self, center)
    *others, gamma = self.space
    self.space = (*others, replace(gamma, prior=0.0, prior_sd=0.7))


def _gamma_by_bic(rows: Rows) -> str | float:
    """Free from 12 supervised runs on, where that lowers BIC by over 2; else 1."""
    alone, count = rows.of_kind(0), rows.n_supervised
    if count < 12:
        return 1.0
    free = fit_model(Model(alone, None), Objective())
    pinned = fit_model(Model(alone, None, fixed={"supervised ln gamma": 0.0}), Objective(), sigma=free.sigma)
    gain = 2 * (pinned.objective - free.objective) * alone.independence
    return "free" if gain - np.log(count * alone.independence) > 2.0 else 1.0


METHODS: dict[str, Callable[..., Forecast]] = {
    "bootstrap": bootstrap,
    "default": default,
    "span": span,
    "first law": first_law,
    "gamma=1": gamma_one,
}
