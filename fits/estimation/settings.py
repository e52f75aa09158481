"""Settings that ``fit``, ``check`` and ``compare_laws`` share: which ones apply, and what gamma becomes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np

from fits.estimation.estimate import Estimate, estimate
from fits.estimation.joint import Recipe, coordinate_pins, fit_laws, joint_fit_p_value
from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import Model, Rows, coordinates_of, law_names
from fits.estimation.parametrization import UNIT
from scaling.errors import InputError

GAMMA_RUNS = 12
"""Fewer supervised runs than this cannot carry a free gamma."""
JOINT_FIT_ALPHA = 0.05
"""A joint fit is given up where the supervised runs speak against it with this probability or less."""


def check_options(
    rows: Rows,
    recipe: Recipe,
    *,
    laws: Sequence[str] | None = None,
    gamma: str | float = "auto",
    joint: bool | None = None,
    given: str = "",
) -> None:
    """Raise InputError for the first option that is unknown, or that would have no effect on this table.

    ``laws``, ``gamma`` and ``joint`` are as they were asked for, ``given`` names the source of a supervised
    law that is not fitted; ``recipe`` holds the other options.
    """
    _check_laws(rows, laws)
    _check_gamma(recipe, gamma)
    if len(rows):
        _check_pins(rows, recipe)
        _check_asymptote(rows, "fixed", recipe.pins.get("E"))
        _check_asymptote(rows, given, None if recipe.given is None else recipe.given.E)
    if recipe.given is not None and recipe.tied:
        raise InputError("tied makes alpha = beta in the supervised law, which is given here: leave it out")
    if joint is not None and (recipe.given is not None or not rows.distillations):
        why = "the supervised law is given" if recipe.given is not None else "the table has no distillations"
        raise InputError(
            f"joint or separate is a choice between two laws that are fitted; {why}: leave it out"
        )
    if recipe.objective.standard_errors and not rows.loss_se.any():
        raise InputError("standard_errors weighs runs by a column 'loss_se', which the table lacks")


def _check_laws(rows: Rows, laws: Sequence[str] | None) -> None:
    if laws is None:
        return
    for law in law_names(laws):
        coordinates_of(law, UNIT)
    if not rows.distillations:
        raise InputError(
            f"no {laws[0]!r} law can be fitted: the table has no distillations (rows with a teacher's loss); "
            "leave the law out to fit the supervised law alone"
        )


def _check_gamma(recipe: Recipe, gamma: str | float) -> None:
    if gamma not in ("auto", "free"):
        try:
            positive = float(gamma) > 0
        except (TypeError, ValueError):
            positive = False
        if not positive:
            raise InputError(f"gamma is 'auto', 'free' or a positive number, not {gamma!r}")
    if gamma != "auto" and recipe.given is not None:
        raise InputError(f"gamma = {gamma} is of the supervised law, which is given here: leave it out")
    if gamma != "auto" and "gamma" in recipe.pins:
        raise InputError(f"gamma is asked for twice: {gamma}, and fixed at {recipe.pins['gamma']:g}")


def _check_pins(rows: Rows, recipe: Recipe) -> None:
    """Refuse coefficients that are not fitted; the model knows which are."""
    law = next(iter(recipe.laws), None)
    Model(rows, law, fixed=coordinate_pins(recipe.pins), given=recipe.given)


def _check_asymptote(rows: Rows, source: str, E: float | Array | None) -> None:
    """Refuse an irreducible loss that is not below every loss in the table."""
    lowest = rows.centre().lowest_loss
    if E is not None and float(np.ravel(E)[0]) >= lowest:
        raise InputError(f"E = {E:.4g} ({source}) is not below the lowest loss in the table, {lowest:.4g}")


def with_gamma(recipe: Recipe, gamma: str | float) -> Recipe:
    """The recipe with gamma fixed: at a number, or at 1 for "auto"; unchanged where it is free or given."""
    if recipe.given is not None or gamma == "free" or "gamma" in recipe.pins:
        return recipe
    return replace(recipe, pins={**recipe.pins, "gamma": 1.0 if gamma == "auto" else float(gamma)})


def decide_gamma(rows: Rows, recipe: Recipe, gamma: str | float) -> tuple[Recipe, list[str]]:
    """The recipe with gamma decided, and a note on how: for "auto" it is free where BIC asks for it."""
    fixed = with_gamma(recipe, gamma)
    if gamma != "auto" or fixed is recipe:
        return fixed, []
    n = rows.supervised
    if n < GAMMA_RUNS:
        return fixed, [f"gamma = 1: {n} supervised runs are too few to ask for a free one"]
    alone = rows.of_kind(0)
    fitted = partial(estimate, objective=recipe.objective, starts=recipe.starts, seed=recipe.seed)
    free = fitted(recipe.model(alone, None, None))
    pinned = fitted(fixed.model(alone, None, None), sigma=free.sigma)
    gain = 2 * (pinned.objective - free.objective) * alone.independence
    gain -= float(np.log(n * alone.independence))
    said = f"BIC of a free gamma is {abs(gain):.1f} {'lower' if gain > 0 else 'higher'}, {n} supervised runs"
    return (recipe, [f"gamma is free: {said}"]) if gain > 2.0 else (fixed, [f"gamma = 1: {said}"])


def fit_or_separate(
    rows: Rows, recipe: Recipe, joint: bool | None, executor: Executor | None = None
) -> tuple[Recipe, dict[str, Estimate], list[str]]:
    """The estimates, joint or separate, the recipe that made them, and a note on the choice."""
    if recipe.given is not None:
        return recipe, fit_laws(rows, recipe, executor=executor), _unused(rows)
    if not recipe.laws:
        return recipe, fit_laws(rows, recipe, executor=executor), []
    apart = replace(recipe, separate=True)
    if joint is False:
        return apart, fit_laws(rows, apart, executor=executor), []
    estimates = fit_laws(rows, recipe, executor=executor)
    chance = joint_fit_p_value(rows, recipe, next(iter(estimates.values())))
    if joint or chance > JOINT_FIT_ALPHA:
        return recipe, estimates, []
    said = (
        f"the supervised law is fitted to its own runs alone: together with the distillations it misses them "
        f"more than chance allows (p = {chance:.1g}), so the {recipe.laws[0]} law does not hold exactly"
    )
    return apart, fit_laws(rows, apart, executor=executor), [said]


def _unused(rows: Rows) -> list[str]:
    """Says that supervised runs go unused where their law is given."""
    if not rows.supervised:
        return []
    return [f"the supervised law is given: the {rows.supervised} supervised runs of the table are not used"]
