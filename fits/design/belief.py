"""Posterior of the laws given few runs or none: an estimate and a normal distribution around it.

The noise of a run is averaged with that of public sweeps, so that a handful of runs that happen to agree do
not claim to know everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fits.design.points import Points
from fits.estimation.estimate import NOISE_RUNS, NOISE_SD, Objective, fit_model
from fits.estimation.laws.parametrization import Center, Prior
from fits.estimation.laws.sibling import TRANSFERRED, Sibling
from fits.estimation.model import Model, Rows
from scaling.laws import AnySupervisedLaw, DistillationLaw

Array = NDArray[np.float64]
LAW = "effective-tokens"
"""Distillation law of a design: few runs identify its three constants."""
LOWEST_LOSS = 2.4
"""nats/token; stands for the lowest loss where no run and no sibling says any: the weak prior of E is 0.6
times that, uncertain by a factor of 1.6."""
FIRST_SIGMA = 0.01
"""Noise of ln loss before any run."""
STARTS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Belief:
    """Estimate of both laws, and its covariance, in the coordinates of a fit."""

    model: Model
    theta: Array
    """(p,): the estimate."""
    covariance: Array
    """(p, p)"""
    sigma: float
    """Standard deviation of ln loss of one run around the law."""
    rows: int
    """Runs that were fitted."""
    residual: float = 0.0
    """Root mean square of their residuals, in ln loss."""

    def laws(self, theta: Array | None = None) -> tuple[AnySupervisedLaw, DistillationLaw]:
        """Return both laws at the estimate, or at ``theta`` (k, p); their coefficients have shape (k, 1)."""
        supervised, distilled = self.model.laws(self.theta[None] if theta is None else theta)
        assert distilled is not None
        return supervised, distilled

    def losses(self, points: Points, theta: Array | None = None) -> Array:
        """Return the losses of points at the estimate, (n,), or at ``theta`` (k, p), (k, n); nats/token."""
        supervised, distilled = self.laws(theta)
        found = supervised.loss(points.N, points.D)
        taught = points.distilled
        if taught.any():
            chosen = points.take(taught)
            L_T = np.where(
                chosen.predicted, supervised.loss(_known(chosen.N_T), _known(chosen.D_T)), chosen.L_T
            )
            found[:, taught] = distilled.loss(chosen.N, chosen.D, L_T, supervised)
        return found if theta is not None else np.asarray(found[0])

    def gradient(self, points: Points) -> Array:
        """Return d ln loss / d theta at the estimate, (n, p).

        A teacher that is yet to be trained brings the uncertainty of its loss, by the chain rule.
        """
        supervised, distilled = self.laws()
        found = np.empty((len(points), len(self.model.fixed_values)))
        taught = points.distilled
        found[~taught] = self._by_supervised(supervised, points.take(~taught))
        if taught.any():
            found[taught] = self._by_both(supervised, distilled, points.take(taught))
        return np.asarray(found @ self.model.tie_matrix)

    def _by_supervised(self, law: AnySupervisedLaw, points: Points) -> Array:
        of = law.derivatives(points.N, points.D)
        if not self.model.inner:  # the law is given
            return np.zeros((len(points), len(self.model.fixed_values)))
        columns = self.model.supervised_coordinates.columns(law, of.own)
        found = np.zeros((len(points), len(self.model.fixed_values)))
        found[:, : self.model.inner] = _stacked(columns, len(points)) / np.ravel(of.loss)[:, None]
        return found

    def _by_both(self, supervised: AnySupervisedLaw, distilled: DistillationLaw, points: Points) -> Array:
        predicted, inner = points.predicted, self.model.inner
        teacher = Points.of(_known(points.N_T), _known(points.D_T))
        L_T = np.where(predicted, supervised.loss(teacher.N, teacher.D)[0], points.L_T)
        of = distilled.derivatives(points.N, points.D, L_T, supervised)
        assert self.model.distillation_coordinates is not None
        outer = self.model.distillation_coordinates.columns(distilled, of.own)
        found = np.zeros((len(points), len(self.model.fixed_values)))
        if inner:
            through = self.model.supervised_coordinates.columns(supervised, of.supervised)
            found[:, :inner] = _stacked(through, len(points))
        found[:, inner:] = _stacked(outer, len(points))
        by_teacher = np.where(predicted, np.ravel(of.inputs["L_T"]), 0.0)
        found += by_teacher[:, None] * self._by_supervised(supervised, teacher)
        return np.asarray(found / np.ravel(of.loss)[:, None])

    def draws(self, count: int, seed: int = 0, covariance: Array | None = None) -> Array:
        """Return draws of the coordinates (count, p), inside their bounds."""
        spread = self.covariance if covariance is None else covariance
        values, vectors = np.linalg.eigh(spread)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        normal = np.random.default_rng(seed).standard_normal((count, len(self.theta)))
        return self.clipped(self.theta + normal @ root.T)

    def clipped(self, theta: Array) -> Array:
        """Return coordinates (k, p) inside their bounds."""
        return np.asarray(np.clip(theta, *self.model.bounds()))


def believe(
    table: pd.DataFrame | None,
    center: Points,
    *,
    sibling: Sibling | None = None,
    given: AnySupervisedLaw | None = None,
    priors: Mapping[str, Prior] | None = None,
    sigma: float | None = None,
    lowest_loss: float | None = None,
) -> Belief:
    """Return what a table of runs says about the laws, with the weak priors or a sibling's.

    Args:
        table: A validated table; None, or one without usable rows, leaves the priors.
        center: Points whose geometric mean is the center of the coordinates: candidates and questions.
        sibling: The law of another corpus, in place of the weak priors.
        given: A supervised law that is known, in place of one that runs determine.
        priors: Priors by name of the coordinate, in place of the weak ones of the supervised law, and of
            those that k, q and eps have from other sweeps.
        sigma: Noise of ln loss, the same for all runs, in a fit by least squares; by default it is estimated,
            and Huber's function used.
        lowest_loss: Loss that the weak prior of E refers to, nats/token; by default the lowest of the runs.
    """
    rows = Rows.of(table) if table is not None else _no_rows()
    known = float(min(rows.L.min(initial=np.inf), rows.L_T.min(initial=np.inf)))
    lowest = lowest_loss or (known if np.isfinite(known) else _lowest_loss(sibling))
    ln_L = float(np.mean(np.log(rows.L_T))) if len(rows.L_T) else 0.0
    at = Center(
        ln_N=float(np.mean(np.log(center.N))), ln_D=float(np.mean(np.log(center.D))), ln_L=ln_L,
        lowest_loss=lowest,
    )  # fmt: skip
    every = {**(sibling.priors() if sibling else TRANSFERRED), **(priors or {})}
    model = Model(
        rows if given is None else rows.of_kind(1), LAW, center=at, priors=every, sibling=sibling, given=given
    )
    if not len(rows):
        middle, spread = model.prior()
        return Belief(
            model=model, theta=middle, covariance=np.diag(spread**2), sigma=sigma or FIRST_SIGMA, rows=0
        )
    return _fitted(model, sigma)


def _fitted(model: Model, sigma: float | None) -> Belief:
    """Return the posterior of a model with rows, its noise estimated if it is not given."""
    objective = Objective() if sigma is None else Objective(delta=np.inf)
    middle = model.prior()[0]
    noise, start = sigma or FIRST_SIGMA, middle
    for starts in (STARTS,) if sigma else (STARTS, 1, 1):
        of_rows = np.hypot(noise, model.rows.projected_sd)
        found = fit_model(model, objective, starts=starts, warm_starts=[start], sigma=of_rows)
        start = found.theta
        covariance: Array = np.asarray(np.linalg.pinv(found.information, hermitian=True), dtype=np.float64)
        if sigma is None:
            noise = _noise(found.residual * (noise / of_rows), covariance, found.problem.precision)
    return Belief(
        model=model,
        theta=found.theta,
        covariance=covariance,
        sigma=noise,
        rows=len(model.rows),
        residual=float(np.sqrt(np.mean(found.residual**2))),
    )


def _noise(residual: Array, covariance: Array, precision: Array) -> float:
    """Return the noise: that of the residuals, winsorized, averaged with the noise of public sweeps."""
    used = len(precision) - float(np.trace(covariance * precision[:, None]))
    cap = max(2.5 * 1.4826 * float(np.median(np.abs(residual))), 2 * NOISE_SD)
    squares = float(np.sum(np.minimum(np.abs(residual), cap) ** 2))
    freedom = max(len(residual) - used, 0.0)
    return float(np.sqrt((NOISE_RUNS * NOISE_SD**2 + squares) / (NOISE_RUNS + freedom)))


def _lowest_loss(sibling: Sibling | None) -> float:
    """Return the loss that bounds E where no run does: far above a sibling's E, which its prior holds."""
    return LOWEST_LOSS if sibling is None else 3.0 * float(np.ravel(sibling.law.E)[0])


def _no_rows() -> Rows:
    none, index = np.empty(0), np.empty(0, dtype=np.intp)
    return Rows(
        N=none,
        D=none,
        L=none,
        L_T=none,
        n_supervised=0,
        loss_se=none,
        projected_sd=none,
        group=index,
        index=index,
    )


def _known(values: Array) -> Array:
    """Return values with 1 for nan, where their result is not used."""
    return np.where(np.isfinite(values), values, 1.0)


def _stacked(columns: list[Array], count: int) -> Array:
    """Return columns of shape (1, n), or (1, 1), as an array (n, columns)."""
    return np.stack([np.broadcast_to(np.ravel(column), (count,)) for column in columns], axis=-1)
