"""One robust estimate of a model: the noise scale, many starts, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fits.estimation.huber import EFFICIENT, curvature, row_information, row_weight
from fits.estimation.levenberg_marquardt import Array, Minimum, Problem, minimise
from fits.estimation.model import Model
from fits.estimation.parallel import solve
from fits.estimation.variable_projection import basins, projects
from scaling.errors import InputError
from scaling.laws import DistillationLaw, SupervisedLaw, coefficients

T = TypeVar("T", SupervisedLaw, DistillationLaw)


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """What is minimised: a sum over rows of Huber's function of ln(loss), plus weak priors.

    ``delta`` is where Huber's function turns linear: a number in units of ln(loss) (Hoffmann et al. 2022
    used 1e-3), "auto" for 1.345 times the noise that the rows themselves show, or infinity for least
    squares. At any ``delta`` the priors count against the noise of the rows (:mod:`fits.estimation.huber`).
    With "auto" each kind of run is weighted by its own noise. ``in_nats`` compares losses instead of their
    logarithms. Where what is left is the law's own error rather than noise, as in the public distillations,
    the rows missed most carry information, and ``delta=inf, in_nats=True`` predicts better.
    ``asymmetry`` above 1 makes over-estimates cost more, for rungs that were not tuned to the end.
    ``standard_errors`` gives a run with a larger ``loss_se`` less weight: its variance is added to what the
    residuals show beyond it. (Errors of one held-out set are common to all runs; then leave it off.)
    ``priors`` turns the weak priors off for the maximum-likelihood estimate.
    """

    delta: float | str = "auto"
    asymmetry: float = 1.0
    standard_errors: bool = False
    priors: bool = True
    in_nats: bool = False

    def __post_init__(self) -> None:
        if self.delta != "auto" and not (isinstance(self.delta, int | float) and self.delta > 0):
            raise InputError(f"delta must be 'auto', a positive number or inf, not {self.delta!r}")
        if not self.asymmetry > 0:
            raise InputError(f"asymmetry must be positive, not {self.asymmetry!r}")


SCREENED = 1000
"""Starts are compared on this many rows, drawn at random; the best is then refined on all."""


SPREAD = 8
"""Starts that go to one worker together; without workers all are minimised at once, which is quickest."""


class Status(StrEnum):
    """How an estimate ended."""

    CONVERGED = "converged"
    AT_BOUND = "at a bound"
    DEGENERATE = "degenerate direction"
    STOPPED = "stopped at the iteration limit"


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The best of many starts."""

    model: Model
    theta: Array
    """(p,)"""
    sigma: Array
    """(rows,): the noise that each row is taken to have, on the scale of the fit."""
    problem: Problem
    objective: float
    starts: int
    agreed: int
    """Starts that ended within 1e-4 of the best objective (relative)."""
    status: Status
    detail: str
    """The coordinates that a status other than "converged" is about."""

    @property
    def predicted(self) -> Array:
        """What the law says of every row, on the scale of the fit."""
        return self.model.at(self.theta)[0]

    @property
    def losses(self) -> Array:
        """What the law says of every row, nats/token."""
        return self.predicted if self.model.in_nats else np.asarray(np.exp(self.predicted))

    @property
    def jacobian(self) -> Array:
        """d predicted / d theta, (rows, p)."""
        return self.model.at(self.theta)[1]

    @property
    def residual(self) -> Array:
        """Observed minus predicted of every row, on the scale of the fit."""
        return np.asarray(self.model.observed - self.predicted)

    @property
    def supervised(self) -> SupervisedLaw:
        """The supervised law, fitted or given."""
        return scalar(self.model.laws(self.theta[None])[0])

    @property
    def distilled(self) -> DistillationLaw:
        """The distillation law; AttributeError if only supervised runs were fitted."""
        law = self.model.laws(self.theta[None])[1]
        if law is None:
            raise AttributeError("only supervised runs were fitted")
        return scalar(law)

    @property
    def scaled_jacobian(self) -> Array:
        """The Jacobian (rows, p) times the root of each row's information."""
        return self.jacobian * np.sqrt(row_information(self.problem.delta, self.sigma))[:, None]

    @property
    def information(self) -> Array:
        """(p, p): what rows and priors say of the coordinates, the inverse of their covariance."""
        scaled = self.scaled_jacobian
        return np.asarray(scaled.T @ scaled + np.diag(self.problem.precision))

    @property
    def beyond_delta(self) -> float:
        """Share of the rows in the linear zone of Huber's function."""
        return float(np.mean(np.abs(self.residual) > self.problem.delta))

    @property
    def standard_errors(self) -> Array:
        """(p,): of the coordinates, from the curvature."""
        return np.asarray(np.sqrt(np.diag(np.linalg.pinv(self.information, hermitian=True))))

    @property
    def condition(self) -> float:
        """Condition number of the Jacobian with its columns scaled to one; above 1e4 is a ridge."""
        columns = self.scaled_jacobian
        norms = np.linalg.norm(columns, axis=0)
        return float(np.linalg.cond(columns / np.where(norms > 0, norms, 1.0)))

    @property
    def ridge(self) -> str:
        """The combination of coordinates that is determined worst, in units of each one's own error."""
        scale = self.standard_errors
        _, directions = np.linalg.eigh(self.information * np.outer(scale, scale))
        worst = directions[:, 0] * np.sign(directions[np.argmax(np.abs(directions[:, 0])), 0])
        parts = [f"{weight:+.2f} {name}" for weight, name in zip(worst, self.model.names, strict=True)]
        return ", ".join(part for part, weight in zip(parts, worst, strict=True) if abs(weight) > 0.25)

    @property
    def bic(self) -> float:
        """Bayesian information criterion of the rows alone, by least squares; lower is better."""
        n = len(self.model.rows)
        mean_square = float(np.mean(self.residual**2))
        return float(n * np.log(max(mean_square, 1e-30)) + self.model.size * np.log(n))


def estimate(
    model: Model,
    objective: Objective,
    *,
    starts: int = 48,
    seed: int = 0,
    near: Sequence[Array] = (),
    sigma: Array | None = None,
    executor: Executor | None = None,
) -> Estimate:
    """Fit ``model`` from ``starts`` random points of its priors and from the points in ``near``.

    The supervised law alone starts from a grid of as many pairs of exponents
    (:mod:`fits.estimation.variable_projection`). ``sigma`` (rows,) fixes the noise; without it the noise is
    estimated, one value a kind of run. ``executor`` spreads the starts over threads, processes or machines.
    """
    rng = np.random.default_rng(seed)
    auto = objective.delta == "auto" and sigma is None
    known = model.rows.loss_se / (1.0 if model.in_nats else model.rows.L) * objective.standard_errors
    guess = np.full(len(model.rows), 0.01) if sigma is None else sigma
    problem = posed(model, objective, guess)
    found, count = _search(model, objective, guess, starts, near, rng, executor)
    best = int(np.argmin(found.objective))
    agreed = int(np.sum(count[found.objective <= found.objective[best] * (1 + 1e-4) + 1e-12]))
    if len(model.rows) > SCREENED:
        found = minimise(problem, found.theta[best : best + 1])
        best = 0
    theta, converged, value = found.theta[best], bool(found.converged[best]), float(found.objective[best])
    if sigma is None:
        for _ in range(4 if auto else 1):
            guess = noise(model, problem, theta, sigma=guess, common=not auto, known=known)
            problem = posed(model, objective, guess)
            last = minimise(problem, theta[None])
            theta, converged, value = last.theta[0], bool(last.converged[0]), float(last.objective[0])
    status, detail = _status(model, theta, converged, problem)
    return Estimate(
        model=model, theta=theta, sigma=guess, problem=problem, objective=value, starts=int(count.sum()),
        agreed=agreed, status=status, detail=detail,
    )  # fmt: skip


def _search(
    model: Model,
    objective: Objective,
    sigma: Array,
    starts: int,
    near: Sequence[Array],
    rng: np.random.Generator,
    executor: Executor | None,
) -> tuple[Minimum, NDArray[np.intp]]:
    """Minimise from everywhere, and how many starts each end stands for.

    Where there are more than ``SCREENED`` rows a sample of them is used.
    """
    if len(model.rows) > SCREENED:
        chosen = np.sort(rng.choice(len(model.rows), SCREENED, replace=False)).astype(np.intp)
        model, sigma = model.on(model.rows.take(chosen)), sigma[chosen]
    held = posed(model, replace(objective, priors=True), sigma)
    points, count = _starts(model, held, starts, rng)
    points = np.concatenate([points, *(point[None] for point in near)])
    count = np.append(count, np.ones(len(near), dtype=np.intp))
    if not objective.priors:  # the priors lead the starts to the basin that matters, then let go
        points = solve(model, held, points, minimise, executor, SPREAD).theta
    return solve(model, posed(model, objective, sigma), points, minimise, executor, SPREAD), count


def _starts(
    model: Model, problem: Problem, starts: int, rng: np.random.Generator
) -> tuple[Array, NDArray[np.intp]]:
    """Points (k, p) to minimise from, and how many starts each stands for."""
    if projects(model):
        return basins(model, problem, starts)
    centre, spread = model.prior()
    points = centre + spread * rng.standard_normal((max(starts, 1), model.size))
    points[0] = centre
    return points, np.ones(len(points), dtype=np.intp)


def posed(model: Model, objective: Objective, sigma: Array) -> Problem:
    """The problem of this model's rows as they were observed, with noise ``sigma`` (rows,)."""
    lower, upper = model.bounds()
    centre, spread = model.prior()
    delta = EFFICIENT * sigma if objective.delta == "auto" else np.full(len(sigma), float(objective.delta))
    return Problem(
        evaluate=model.evaluate,
        observed=model.observed[None],
        weight=row_weight(delta, sigma)[None],
        lower=lower,
        upper=upper,
        centre=centre[None],
        precision=spread**-2.0 if objective.priors else np.zeros(model.size),
        delta=delta,
        asymmetry=objective.asymmetry,
    )


def noise(model: Model, problem: Problem, theta: Array, *, sigma: Array, common: bool, known: Array) -> Array:
    """Standard deviation of each row on the scale of the fit: one value a kind of run beside what is known.

    A root mean square winsorised at 2.5 robust deviations, so an outlier does not inflate it; the degrees of
    freedom charged to a kind are the leverages of its rows. ``sigma`` (rows,) is that of the problem.
    """
    rows = model.rows
    predicted, jacobian = model.at(theta)
    residual = model.observed - predicted
    information = row_information(problem.delta, sigma)
    freedom = 1.0 - leverage(jacobian * np.sqrt(information)[:, None], problem.precision)
    kinds = np.zeros_like(rows.kind) if common else rows.kind
    shown = np.empty(len(rows))
    for kind in np.unique(kinds):
        mine = kinds == kind
        left = max(float(np.mean(freedom[mine])), 1.0 / len(rows))
        size = np.abs(residual[mine])
        # in Huber's linear zone the fit passes through as many rows as it has coordinates
        exact = (1.0 - left) * (1.0 - float(np.mean(curvature(problem.delta, sigma)[mine])))
        cap = 2.5 * 1.4826 * max(float(np.quantile(size, (1.0 + exact) / 2)), 1e-7) / np.sqrt(left)
        total = float(np.mean(np.minimum(size, cap) ** 2)) / left
        shown[mine] = np.sqrt(max(total - float(np.mean(known[mine] ** 2)), 0.0) + known[mine] ** 2)
    return np.asarray(np.maximum(shown, 1e-6))


def leverage(scaled: Array, precision: Array) -> Array:
    """How much of each row (n,) its own fit explains; ``scaled`` is the Jacobian (n, p) over the noise."""
    norms = np.sqrt(np.sum(scaled**2, axis=0) + precision)
    norms = np.where(norms > 0, norms, 1.0)
    unit = scaled / norms
    information = unit.T @ unit + np.diag(precision / norms**2 + 1e-12)
    return np.asarray(np.clip(np.sum(unit * np.linalg.solve(information, unit.T).T, axis=1), 0.0, 1.0))


def _status(model: Model, theta: Array, converged: bool, problem: Problem) -> tuple[Status, str]:
    width = problem.upper - problem.lower
    held = (theta <= problem.lower + 1e-6 * width) | (theta >= problem.upper - 1e-6 * width)
    if held.any():
        return Status.AT_BOUND, ", ".join(name for name, at in zip(model.names, held, strict=True) if at)
    jacobian = model.at(theta)[1] * np.sqrt(problem.weight[0])[:, None]
    norms = np.linalg.norm(jacobian, axis=0)
    _, singular, directions = np.linalg.svd(jacobian / np.where(norms > 0, norms, 1.0), full_matrices=False)
    if singular[-1] < 1e-4 * singular[0]:
        ridge = np.abs(directions[-1]) > 0.3
        return Status.DEGENERATE, ", ".join(name for name, on in zip(model.names, ridge, strict=True) if on)
    return (Status.CONVERGED, "") if converged else (Status.STOPPED, "")


def scalar(law: T) -> T:
    """The law with coefficients of shape (1, 1) as one with plain floats."""
    plain = {name: float(np.ravel(value)[0]) for name, value in coefficients(law).items()}
    dataclass_law: Any = law
    return replace(dataclass_law, **plain)  # type: ignore[no-any-return]
