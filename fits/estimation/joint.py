"""Fitting several laws to one table so that they stand on one supervised law.

The first distillation law is fitted jointly with the supervised law. Further laws are conditional on that
supervised law, in the estimate and again in every draw, so all of them can share one calibration. Where the
distillations would bend the supervised law away from its own runs, all laws are conditional on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import chi2

from fits.estimation.bootstrap import bootstrap
from fits.estimation.estimate import Estimate, Objective, estimate
from fits.estimation.levenberg_marquardt import Array, objective
from fits.estimation.model import Model, Rows, constants_of, coordinates_of
from fits.estimation.parametrization import UNIT, Law, SupervisedCoordinates
from scaling.errors import InputError
from scaling.laws import SupervisedLaw, coefficients

SUPERVISED = "supervised"
Draws = dict[str, dict[str, Array]]


@dataclass(frozen=True, kw_only=True, slots=True)
class FreeCoefficients:
    """Coefficients that a fit leaves free, by kind of run, from which the least number of runs follows."""

    supervised: int = 5
    """Of the supervised law; 0 where it is given."""
    distillation: int = 3
    """Of the distillation law that has most of them."""
    asymptote: bool = True
    """E is one of them."""

    @property
    def least_supervised(self) -> int:
        """Supervised runs without which nothing is fitted."""
        return self.supervised + 1 if self.supervised else 0

    @property
    def least_distillations(self) -> int:
        """Distillations without which no distillation law is fitted."""
        return self.distillation + 1


DEFAULT_COEFFICIENTS = FreeCoefficients()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Every decision about how a table is fitted; the same recipe refits a part of it."""

    laws: tuple[str, ...]
    """Distillation laws, the joint one first; empty for supervised runs alone."""
    pins: Mapping[str, float] = field(default_factory=dict)
    """Coefficients held at a value: E and gamma of the supervised law, others of the joint law."""
    tied: bool = False
    """alpha = beta."""
    given: SupervisedLaw | None = None
    """A supervised law that is not fitted."""
    given_draws: Mapping[str, Array] | None = None
    """Its coefficients (draws,), where it has an uncertainty."""
    objective: Objective = field(default_factory=Objective)
    starts: int = 48
    seed: int = 0
    separate: bool = False
    """Fit the supervised law to its own runs alone, and every distillation law conditional on it."""

    def free(self) -> FreeCoefficients:
        """Count the coefficients that this recipe fits."""
        named = coordinate_pins(self.pins)
        supervised = len(SupervisedCoordinates.names) - self.tied
        supervised -= sum(name.startswith(SUPERVISED) for name in named)

        def of_law(law: str) -> int:
            fixed = {*constants_of(law), *(named if law == self.laws[0] else ())}
            return sum(c.name not in fixed for c in coordinates_of(law, UNIT).space)

        return FreeCoefficients(
            supervised=0 if self.given is not None else supervised,
            distillation=max(map(of_law, self.laws), default=0),
            asymptote="E" not in self.pins,
        )

    def model(self, rows: Rows, law: str | None, given: SupervisedLaw | None) -> Model:
        """The model of a law under this recipe; conditional on ``given``, or joint where it is None."""
        pins = coordinate_pins(self.pins) if law in (None, *self.laws[:1]) else {}
        if law is None:
            pins = {name: value for name, value in pins.items() if name.startswith(SUPERVISED)}
        if given is not None:
            rows = rows.of_kind(1)
        if given is not self.given:  # fitted to the supervised runs, with its pins
            pins = {name: value for name, value in pins.items() if not name.startswith(SUPERVISED)}
        return Model(rows, law, fixed=pins, tied=self.tied, given=given, in_nats=self.objective.in_nats)


def fit_laws(
    rows: Rows,
    recipe: Recipe,
    near: Mapping[str, Estimate] | None = None,
    executor: Executor | None = None,
) -> dict[str, Estimate]:
    """Every law of the recipe, by name (``supervised`` if there are no distillations).

    ``near`` gives estimates on more rows: further starts, beside which few random ones are needed.
    """
    found: dict[str, Estimate] = {}
    given = recipe.given
    alone = (None,) if recipe.separate or not recipe.laws else ()
    for law in (*alone, *recipe.laws):
        model = recipe.model(rows if law else rows.of_kind(0), law, given)
        starts = [near[law or SUPERVISED].theta] if near else []
        count = recipe.starts if near is None else max(recipe.starts // 8, 4)
        name = law or SUPERVISED
        found[name] = estimate(
            model, recipe.objective, starts=count, seed=recipe.seed, near=starts, executor=executor
        )
        if given is None:
            given = found[name].supervised
    return found


def joint_fit_p_value(rows: Rows, recipe: Recipe, joint: Estimate) -> float:
    """Return the probability that by chance alone a joint fit misses the supervised runs as much as it does.

    The rise of the supervised runs' own objective is compared with chi-squared; a small probability says
    that a distillation law which does not hold has bent the supervised law.
    """
    alone = recipe.model(rows.of_kind(0), None, None)
    found = estimate(alone, recipe.objective, starts=recipe.starts, seed=recipe.seed)
    full = alone.supervised.theta(joint.supervised)
    bent = (full - alone.offset) @ np.linalg.pinv(alone.expand).T
    rise = float(objective(found.problem, bent[None])[0]) - found.objective
    return float(chi2.sf(2 * rise * alone.rows.independence, alone.size))


def draw_laws(
    estimates: Mapping[str, Estimate],
    recipe: Recipe,
    draws: int,
    resample: str,
    executor: Executor | None = None,
) -> Draws:
    """Coefficients by law and name, each (draws,); row i of all of them is one bootstrap draw.

    Every law sees the same resampled runs in draw i, and the supervised law of draw i.
    """
    columns: Draws = {}
    if recipe.given_draws is not None:
        columns[SUPERVISED] = dict(recipe.given_draws)
    for name, found in estimates.items():
        model = found.model
        if SUPERVISED in columns:
            given = SupervisedLaw(**columns[SUPERVISED])
            model = Model(
                model.rows.of_kind(1), model.law, fixed=model.fixed, given=given, in_nats=model.in_nats,
                centre=model.centre,
            )  # fmt: skip
        sampled = bootstrap(found, draws, method=resample, seed=recipe.seed, model=model, executor=executor)
        theta = sampled.theta
        supervised, distilled = model.laws(theta)
        columns.setdefault(SUPERVISED, _columns(supervised, draws))
        if distilled is not None:
            columns[name] = _columns(distilled, draws)
    return columns


def coordinate_pins(pins: Mapping[str, float]) -> dict[str, float]:
    """Pins by the name of the fitted coordinate; raises InputError for a coefficient that is not positive."""
    for coefficient, number in pins.items():
        if not 0 < number < np.inf:
            raise InputError(f"{coefficient} is fixed at {number:g}; coefficients are positive numbers")
    return {
        f"{SUPERVISED} ln {name}" if name in ("E", "gamma") else f"ln {name}": float(np.log(number))
        for name, number in pins.items()
    }


def _columns(law: Law, draws: int) -> dict[str, Array]:
    """Coefficients of shape (draws, 1), or (1, 1), as columns (draws,)."""
    return {
        name: np.broadcast_to(np.ravel(value), (draws,)).copy() for name, value in coefficients(law).items()
    }
