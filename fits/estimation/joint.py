"""Joint fit of the supervised law and distillation laws to one table.

The first distillation law is fitted jointly with the supervised law. Further laws are conditional on that
supervised law, in the estimate and again in every draw, so that one calibration holds all of them. Where the
supervised runs reject the joint fit, all distillation laws are conditional on the supervised law alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import chi2

from fits.estimation.bootstrap import bootstrap
from fits.estimation.estimate import Estimate, Objective, fit_model
from fits.estimation.laws.parametrization import UNIT, Coordinate, Law, Prior
from fits.estimation.laws.sibling import Sibling, SiblingCoordinates
from fits.estimation.levenberg_marquardt import Array, objective
from fits.estimation.model import (
    COORDINATES,
    SUPERVISED_COORDINATES,
    Model,
    Rows,
    constants_of,
    coordinates_of,
)
from scaling.errors import InputError
from scaling.laws import AnySupervisedLaw, coefficients
from scaling.laws.registry import POWER_LAW

SUPERVISED = "supervised"
Draws = dict[str, dict[str, Array]]


@dataclass(frozen=True, kw_only=True, slots=True)
class FreeCoefficients:
    """Number of free coefficients by kind of run, and the least number of runs that follows."""

    supervised: int = 5
    """Free coefficients of the supervised law; 0 where it is given."""
    distillation: int = 3
    """Free coefficients of the largest distillation law."""
    asymptote: bool = True
    """True if E is free."""
    sibling: str = ""
    """Name of the sibling whose law is mapped; its priors hold all coordinates, so that two runs do."""

    @property
    def min_supervised_runs(self) -> int:
        """Least number of supervised runs."""
        if self.sibling:
            return 2
        return self.supervised + 1 if self.supervised else 0

    @property
    def min_distillation_runs(self) -> int:
        """Least number of distillations."""
        return self.distillation + 1


DEFAULT_COEFFICIENTS = FreeCoefficients()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Options of a fit; the same recipe refits parts of the table."""

    laws: tuple[str, ...]
    """Distillation laws, the joint one first; empty for supervised runs alone."""
    pins: Mapping[str, float] = field(default_factory=dict)
    """Coefficients held at a value: E and gamma of the supervised law, others of the joint law."""
    tied: bool = False
    """Fit one exponent for alpha and beta."""
    supervised_law: str = POWER_LAW
    """Kind of the supervised law that is fitted."""
    sibling: Sibling | None = None
    """Law of another corpus, whose map is fitted in place of the power law's coefficients."""
    given: AnySupervisedLaw | None = None
    """Given supervised law, which is not fitted."""
    given_draws: Mapping[str, Array] | None = None
    """Draws of the given law's coefficients, (draws,) each; None without uncertainty."""
    objective: Objective = field(default_factory=Objective)
    starts: int = 48
    seed: int = 0
    separate: bool = False
    """Fit the supervised law to the supervised runs alone, and distillation laws conditional on it."""
    joint_fit_p_value: float | None = None
    """p value at which the supervised runs rejected a joint fit; None where they did not."""
    priors: Mapping[str, Prior] = field(default_factory=dict)
    """Priors that replace those of the coordinates, by name."""
    priors_without: Mapping[str, Mapping[str, Prior]] = field(default_factory=dict)
    """Priors of refits that leave out a block, by its rule, as the other blocks ask for."""

    def without(self, rule: str) -> Recipe:
        """Return the recipe of a refit without the block of a rule."""
        return replace(self, priors=self.priors_without.get(rule, self.priors))

    def free(self) -> FreeCoefficients:
        """Count the free coefficients of this recipe."""
        named = coordinate_pins(self.pins, self.supervised_law)
        space = self._supervised_space()
        supervised = len(space) - self.tied - sum(name.startswith(SUPERVISED) for name in named)
        if self.objective.priors:  # which hold the coordinates that few runs determine
            fixed = {name.removeprefix(f"{SUPERVISED} ") for name in named}
            supervised -= sum(c.held_by_prior and c.name not in fixed for c in space)

        def of_law(law: str) -> int:
            fixed = {*constants_of(law), *(named if law == self.laws[0] else ())}
            held = set(self.sibling.priors()) if self.sibling else set()
            return sum(c.name not in fixed | held for c in coordinates_of(law, UNIT, COORDINATES).space)

        return FreeCoefficients(
            supervised=0 if self.given is not None else supervised,
            distillation=max(map(of_law, self.laws), default=0),
            asymptote="E" not in self.pins,
            sibling=self.sibling.name if self.sibling else "",
        )

    def _supervised_space(self) -> tuple[Coordinate, ...]:
        if self.sibling:
            return SiblingCoordinates(self.sibling, UNIT.lowest_loss).space
        return coordinates_of(self.supervised_law, UNIT, SUPERVISED_COORDINATES).space

    def model(self, rows: Rows, law: str | None, given: AnySupervisedLaw | None) -> Model:
        """Return the model of a law under this recipe, conditional on ``given``, or joint if that is None."""
        pins = coordinate_pins(self.pins, self.supervised_law) if law in (None, *self.laws[:1]) else {}
        if law is None:
            pins = {name: value for name, value in pins.items() if name.startswith(SUPERVISED)}
        if given is not None:
            rows = rows.of_kind(1)
        if given is not self.given:  # fitted to the supervised runs, with its pins
            pins = {name: value for name, value in pins.items() if not name.startswith(SUPERVISED)}
        return Model(
            rows, law, supervised_law=self.supervised_law, fixed=pins, tied=self.tied, given=given,
            in_nats=self.objective.in_nats, priors=self.priors, sibling=self.sibling,
        )  # fmt: skip


def fit_laws(
    rows: Rows,
    recipe: Recipe,
    warm_starts: Mapping[str, Estimate] | None = None,
    executor: Executor | None = None,
) -> dict[str, Estimate]:
    """Fit every law of the recipe.

    Args:
        rows: The runs.
        recipe: The laws and options.
        warm_starts: Estimates on more rows, used as further starts; fewer random ones are then drawn.
        executor: Runs starts in threads, processes or on machines.

    Returns:
        Estimates by law; "supervised" for that of supervised runs alone.
    """
    found: dict[str, Estimate] = {}
    given = recipe.given
    alone = (None,) if recipe.separate or not recipe.laws else ()
    for law in (*alone, *recipe.laws):
        model = recipe.model(rows if law else rows.of_kind(0), law, given)
        starts = [warm_starts[law or SUPERVISED].theta] if warm_starts else []
        count = recipe.starts if warm_starts is None else max(recipe.starts // 8, 4)
        name = law or SUPERVISED
        found[name] = fit_model(
            model, recipe.objective, starts=count, seed=recipe.seed, warm_starts=starts, executor=executor
        )
        if given is None:
            given = found[name].supervised
    return found


def joint_fit_p_value(rows: Rows, recipe: Recipe, joint: Estimate) -> float:
    """Return the p value of a likelihood-ratio test of the joint fit on the supervised runs.

    The rise of the supervised runs' objective at the joint estimate is compared with chi-squared. A small
    value says that a distillation law that does not hold has biased the supervised law.
    """
    alone = recipe.model(rows.of_kind(0), None, None)
    found = fit_model(alone, recipe.objective, starts=recipe.starts, seed=recipe.seed)
    full = alone.supervised_coordinates.theta(joint.supervised)
    bent = (full - alone.fixed_values) @ np.linalg.pinv(alone.tie_matrix).T
    rise = float(objective(found.problem, bent[None])[0]) - found.objective
    return float(chi2.sf(2 * rise * alone.rows.independence, alone.size))


def draw_laws(
    estimates: Mapping[str, Estimate],
    recipe: Recipe,
    draws: int,
    resample: str,
    executor: Executor | None = None,
) -> Draws:
    """Return bootstrap draws of coefficients by law and name, each (draws,).

    Element i of all of them is one draw: every law is refitted to the same resampled runs, with the
    supervised law of that draw.
    """
    columns: Draws = {}
    if recipe.given_draws is not None:
        columns[SUPERVISED] = dict(recipe.given_draws)
    for name, found in estimates.items():
        model = found.model
        if SUPERVISED in columns:
            law = type(next(iter(estimates.values())).supervised)
            model = conditional_model(model, law(**columns[SUPERVISED]))
        sampled = bootstrap(found, draws, method=resample, seed=recipe.seed, model=model, executor=executor)
        theta = sampled.theta
        supervised, distilled = model.laws(theta)
        columns.setdefault(SUPERVISED, _columns(supervised, draws))
        if distilled is not None:
            columns[name] = _columns(distilled, draws)
    return columns


def conditional_model(model: Model, given: AnySupervisedLaw) -> Model:
    """Return the model of the distillations under a supervised law that is not fitted.

    Its coefficients have shape (), or (batch,) for another law in every member.
    """
    return Model(
        model.rows.of_kind(1), model.law, fixed=model.fixed, given=given, in_nats=model.in_nats,
        center=model.center,
    )  # fmt: skip


def coordinate_pins(pins: Mapping[str, float], supervised_law: str = POWER_LAW) -> dict[str, float]:
    """Return fixed values by the name of the fitted coordinate.

    A coefficient that both laws have is that of the supervised law.

    Raises:
        InputError: for a coefficient that is not positive.
    """
    for coefficient, number in pins.items():
        if not 0 < number < np.inf:
            raise InputError(f"{coefficient} is fixed at {number:g}; coefficients must be positive")
    own = {c.name for c in coordinates_of(supervised_law, UNIT, SUPERVISED_COORDINATES).space}
    return {
        f"{SUPERVISED} ln {name}" if f"ln {name}" in own else f"ln {name}": float(np.log(number))
        for name, number in pins.items()
    }


def _columns(law: Law, draws: int) -> dict[str, Array]:
    """Return coefficients of shape (draws, 1), or (1, 1), as columns (draws,)."""
    return {
        name: np.broadcast_to(np.ravel(value), (draws,)).copy() for name, value in coefficients(law).items()
    }
