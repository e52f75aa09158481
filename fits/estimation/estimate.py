"""Robust estimate of a model: noise scale, minimization from many starts, status."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fits.estimation.huber import EFFICIENT, curvature, row_information, row_weight
from fits.estimation.levenberg_marquardt import Array, BatchProblem, Minimum, minimize
from fits.estimation.model import Model
from fits.estimation.parallel import solve_in_parts
from fits.estimation.variable_projection import is_projectable, projected_starts
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw, DistillationLaw, coefficients

T = TypeVar("T", AnySupervisedLaw, DistillationLaw)


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """Objective of a fit: a sum over rows of Huber's function of ln(loss) residuals, plus weak priors.

    Args:
        delta: Residual above which Huber's function is linear: a number in units of ln(loss) (Hoffmann et
            al. 2022 used 1e-3), "auto" for 1.345 times the estimated noise, or infinity for least squares.
            With "auto" each kind of run is weighted by its own noise. The priors are weighed against the
            noise at any ``delta`` (:mod:`fits.estimation.huber`).
        asymmetry: Cost ratio of over- to under-prediction; above 1 for runs that were not fully tuned.
        standard_errors: Give a run with a larger ``loss_se`` less weight: its variance is added to the
            residual variance. Leave it off where all runs share one held-out set, whose error is common.
        priors: Use the weak priors; without them the estimate is that of maximum likelihood.
        in_nats: Fit losses instead of their logarithms. Where residuals are misfit of the law rather than
            noise, as in the public distillations, ``delta=inf, in_nats=True`` predicts better.

    Raises:
        InputError: for a ``delta`` or ``asymmetry`` that is not positive.

    >>> from fits import Objective
    >>> Objective(delta=1e-3).asymmetry
    1.0
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


SCREENING_ROWS = 1000
"""Rows, drawn at random, on which starts are compared; the best is then refined on all rows."""
NOISE_SD, NOISE_RUNS = 0.008, 4.0
"""Spread of one run (sd of ln loss, the geometric mean of public sweeps), and the degrees of freedom that it
counts for where two or three runs map a sibling's law and show no spread of their own."""
STARTS_PER_TASK = 8
"""Starts in one task of an executor; without an executor all are minimized in one batch."""


class FitStatus(StrEnum):
    """Outcome of a minimization."""

    CONVERGED = "converged"
    AT_BOUND = "at a bound"
    DEGENERATE = "degenerate direction"
    ITERATION_LIMIT = "stopped at the iteration limit"


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Best minimum of many starts."""

    model: Model
    theta: Array
    """(p,)"""
    sigma: Array
    """(rows,): estimated standard deviation of the noise, on the scale of the fit."""
    problem: BatchProblem
    objective: float
    starts: int
    agreed: int
    """Starts that ended within 1e-4 of the best objective (relative)."""
    status: FitStatus
    detail: str
    """Coordinates that a status other than "converged" refers to."""

    @property
    def predicted(self) -> Array:
        """Fitted values (rows,), on the scale of the fit."""
        return self.model.evaluate_at(self.theta)[0]

    @property
    def losses(self) -> Array:
        """Fitted losses (rows,), nats/token."""
        return self.predicted if self.model.in_nats else np.asarray(np.exp(self.predicted))

    @property
    def jacobian(self) -> Array:
        """Jacobian of the fitted values, d predicted / d theta, (rows, p)."""
        return self.model.evaluate_at(self.theta)[1]

    @property
    def residual(self) -> Array:
        """Observed minus fitted values (rows,), on the scale of the fit."""
        return np.asarray(self.model.observed - self.predicted)

    @property
    def supervised(self) -> AnySupervisedLaw:
        """Supervised law, fitted or given."""
        return scalar_law(self.model.laws(self.theta[None])[0])

    @property
    def distilled(self) -> DistillationLaw:
        """Distillation law.

        Raises:
            AttributeError: if only supervised runs were fitted.
        """
        law = self.model.laws(self.theta[None])[1]
        if law is None:
            raise AttributeError("only supervised runs were fitted")
        return scalar_law(law)

    @property
    def scaled_jacobian(self) -> Array:
        """Jacobian (rows, p) times the square root of each row's information."""
        return self.jacobian * np.sqrt(row_information(self.problem.delta, self.sigma))[:, None]

    @property
    def information(self) -> Array:
        """Information matrix (p, p) of rows and priors, the inverse of the covariance of the coordinates."""
        scaled = self.scaled_jacobian
        return np.asarray(scaled.T @ scaled + np.diag(self.problem.precision))

    @property
    def beyond_delta(self) -> float:
        """Share of the rows in the linear zone of Huber's function."""
        return float(np.mean(np.abs(self.residual) > self.problem.delta))

    @property
    def standard_errors(self) -> Array:
        """Standard errors (p,) of the coordinates, from the curvature."""
        return np.asarray(np.sqrt(np.diag(np.linalg.pinv(self.information, hermitian=True))))

    @property
    def condition(self) -> float:
        """Condition number of the Jacobian with columns of unit norm; above 1e4 is a ridge."""
        columns = self.scaled_jacobian
        norms = np.linalg.norm(columns, axis=0)
        return float(np.linalg.cond(columns / np.where(norms > 0, norms, 1.0)))

    @property
    def ridge(self) -> str:
        """Least determined combination of coordinates, each in units of its standard error."""
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


def fit_model(
    model: Model,
    objective: Objective,
    *,
    starts: int = 48,
    seed: int = 0,
    warm_starts: Sequence[Array] = (),
    sigma: Array | None = None,
    executor: Executor | None = None,
) -> Estimate:
    """Fit a model from many starts.

    Args:
        model: The model of the rows.
        objective: The objective to minimize.
        starts: Random starts, drawn from the priors. The supervised law alone starts from a grid of as many
            pairs of exponents (:mod:`fits.estimation.variable_projection`).
        seed: Seed of the starts.
        warm_starts: Further starts, (p,) each.
        sigma: Noise of the rows (rows,); by default it is estimated, one value for each kind of run.
        executor: Runs starts in threads, processes or on machines.

    Returns:
        The best minimum, with its status.
    """
    rng = np.random.default_rng(seed)
    auto = objective.delta == "auto" and sigma is None
    known = known_errors(model, objective)
    guess = np.full(len(model.rows), 0.01) if sigma is None else sigma
    problem = objective_problem(model, objective, guess)
    found, count = _search(model, objective, guess, starts, warm_starts, rng, executor)
    best = int(np.argmin(found.objective))
    agreed = int(np.sum(count[found.objective <= found.objective[best] * (1 + 1e-4) + 1e-12]))
    if len(model.rows) > SCREENING_ROWS:
        found = minimize(problem, found.theta[best : best + 1])
        best = 0
    theta, converged, value = found.theta[best], bool(found.converged[best]), float(found.objective[best])
    if sigma is None:
        for _ in range(4 if auto else 1):
            guess = estimate_noise(model, problem, theta, sigma=guess, common=not auto, known=known)
            problem = objective_problem(model, objective, guess)
            last = minimize(problem, theta[None])
            theta, converged, value = last.theta[0], bool(last.converged[0]), float(last.objective[0])
    status, detail = _status(model, theta, converged, problem)
    return Estimate(
        model=model, theta=theta, sigma=guess, problem=problem, objective=value, starts=int(count.sum()),
        agreed=agreed, status=status, detail=detail,
    )  # fmt: skip


def known_errors(model: Model, objective: Objective) -> Array:
    """Return the known standard deviations of the losses (rows,), on the scale of the fit.

    Those of projected losses always count, standard errors where the objective says so.
    """
    rows = model.rows
    measured = rows.loss_se / (1.0 if model.in_nats else rows.L) * objective.standard_errors
    return np.asarray(np.hypot(measured, rows.projected_sd * (rows.L if model.in_nats else 1.0)))


def _search(
    model: Model,
    objective: Objective,
    sigma: Array,
    starts: int,
    warm_starts: Sequence[Array],
    rng: np.random.Generator,
    executor: Executor | None,
) -> tuple[Minimum, NDArray[np.intp]]:
    """Return the minimum reached from each start, and the number of starts that each represents.

    With more than ``SCREENING_ROWS`` rows a sample of them is used.
    """
    if len(model.rows) > SCREENING_ROWS:
        chosen = np.sort(rng.choice(len(model.rows), SCREENING_ROWS, replace=False)).astype(np.intp)
        model, sigma = model.with_rows(model.rows.take(chosen)), sigma[chosen]
    held = objective_problem(model, replace(objective, priors=True), sigma)
    points, count = _starts(model, held, starts, rng)
    points = np.concatenate([points, *(point[None] for point in warm_starts)])
    count = np.append(count, np.ones(len(warm_starts), dtype=np.intp))
    if not objective.priors:  # minimize with the priors first, then without: fewer starts end far away
        points = solve_in_parts(model, held, points, minimize, executor, STARTS_PER_TASK).theta
    return solve_in_parts(
        model, objective_problem(model, objective, sigma), points, minimize, executor, STARTS_PER_TASK
    ), count


def _starts(
    model: Model, problem: BatchProblem, starts: int, rng: np.random.Generator
) -> tuple[Array, NDArray[np.intp]]:
    """Return points (k, p) to minimize from, and the number of starts that each represents."""
    if is_projectable(model):
        return projected_starts(model, problem, starts)
    center, spread = model.prior()
    points = center + spread * rng.standard_normal((max(starts, 1), model.size))
    points[0] = center
    return points, np.ones(len(points), dtype=np.intp)


def objective_problem(model: Model, objective: Objective, sigma: Array) -> BatchProblem:
    """Return the problem of fitting a model to its rows, with noise ``sigma`` (rows,)."""
    lower, upper = model.bounds()
    center, spread = model.prior()
    delta = EFFICIENT * sigma if objective.delta == "auto" else np.full(len(sigma), float(objective.delta))
    return BatchProblem(
        evaluate=model.evaluate,
        observed=model.observed[None],
        weight=row_weight(delta, sigma)[None],
        lower=lower,
        upper=upper,
        center=center[None],
        precision=spread**-2.0 if objective.priors else np.zeros(model.size),
        delta=delta,
        asymmetry=objective.asymmetry,
    )


def estimate_noise(
    model: Model, problem: BatchProblem, theta: Array, *, sigma: Array, common: bool, known: Array
) -> Array:
    """Return the standard deviation of each row, on the scale of the fit.

    It is one value for each kind of run, plus the known standard errors: a root mean square winsorized at 2.5
    robust deviations, so that an outlier does not inflate it. The degrees of freedom that a kind uses are the
    leverages of its rows.

    Args:
        model: The model of the rows.
        problem: The problem that was solved.
        theta: The estimate (p,).
        sigma: Noise (rows,) that the problem was posed with.
        common: Estimate one value for all kinds of run.
        known: Standard errors (rows,) of the measured losses, on the scale of the fit.
    """
    rows = model.rows
    predicted, jacobian = model.evaluate_at(theta)
    residual = model.observed - predicted
    information = row_information(problem.delta, sigma)
    freedom = 1.0 - leverage(jacobian * np.sqrt(information)[:, None], problem.precision)
    kinds = np.zeros_like(rows.kind) if common else rows.kind
    shown = np.empty(len(rows))
    for kind in np.unique(kinds):
        mine = kinds == kind
        left = max(float(np.mean(freedom[mine])), 1.0 / len(rows))
        size = np.abs(residual[mine])
        # where Huber's function is linear, the fit interpolates as many rows as it has coordinates
        exact = (1.0 - left) * (1.0 - float(np.mean(curvature(problem.delta, sigma)[mine])))
        cap = 2.5 * 1.4826 * max(float(np.quantile(size, (1.0 + exact) / 2)), 1e-7) / np.sqrt(left)
        total = float(np.mean(np.minimum(size, cap) ** 2)) / left
        if model.sibling:
            total = _shrunk_variance(total, left * float(np.sum(mine)))
        shown[mine] = np.sqrt(max(total - float(np.mean(known[mine] ** 2)), 0.0) + known[mine] ** 2)
    return np.asarray(np.maximum(shown, 1e-6))


def _shrunk_variance(variance: float, freedom: float) -> float:
    """Return a variance averaged with what runs of public sweeps have, by degrees of freedom."""
    return (NOISE_RUNS * NOISE_SD**2 + freedom * variance) / (NOISE_RUNS + freedom)


def leverage(scaled: Array, precision: Array) -> Array:
    """Return the leverage (n,) of each row; ``scaled`` is the Jacobian (n, p) divided by the noise."""
    norms = np.sqrt(np.sum(scaled**2, axis=0) + precision)
    norms = np.where(norms > 0, norms, 1.0)
    unit = scaled / norms
    information = unit.T @ unit + np.diag(precision / norms**2 + 1e-12)
    return np.asarray(np.clip(np.sum(unit * np.linalg.solve(information, unit.T).T, axis=1), 0.0, 1.0))


def _status(model: Model, theta: Array, converged: bool, problem: BatchProblem) -> tuple[FitStatus, str]:
    width = problem.upper - problem.lower
    held = (theta <= problem.lower + 1e-6 * width) | (theta >= problem.upper - 1e-6 * width)
    if held.any():
        return FitStatus.AT_BOUND, ", ".join(name for name, at in zip(model.names, held, strict=True) if at)
    jacobian = model.evaluate_at(theta)[1] * np.sqrt(problem.weight[0])[:, None]
    norms = np.linalg.norm(jacobian, axis=0)
    _, singular, directions = np.linalg.svd(jacobian / np.where(norms > 0, norms, 1.0), full_matrices=False)
    if singular[-1] < 1e-4 * singular[0]:
        ridge = np.abs(directions[-1]) > 0.3
        return FitStatus.DEGENERATE, ", ".join(
            name for name, on in zip(model.names, ridge, strict=True) if on
        )
    return (FitStatus.CONVERGED, "") if converged else (FitStatus.ITERATION_LIMIT, "")


def scalar_law(law: T) -> T:
    """Return a law with coefficients of shape (1, 1) as one with plain floats."""
    plain = {name: float(np.ravel(value)[0]) for name, value in coefficients(law).items()}
    dataclass_law: Any = law
    return replace(dataclass_law, **plain)  # type: ignore[no-any-return]
