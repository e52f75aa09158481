"""Options that ``fit``, ``check`` and ``compare_laws`` share: validation, gamma, joint or separate fits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from fits.estimation.estimate import Estimate
from fits.estimation.joint import Recipe, coordinate_pins, fit_laws, joint_fit_p_value
from fits.estimation.laws.parametrization import UNIT
from fits.estimation.levenberg_marquardt import Array
from fits.estimation.model import COORDINATES, SUPERVISED_COORDINATES, Model, Rows, coordinates_of, law_names
from scaling.errors import InputError
from scaling.laws.registry import POWER_LAW, check_compatible, find_kind, supervised_kind

JOINT_FIT_ALPHA = 0.05
"""Significance level at which the supervised runs reject a joint fit."""


def check_options(
    rows: Rows,
    recipe: Recipe,
    *,
    laws: Sequence[str] | None = None,
    gamma: str | float = "auto",
    joint: bool | None = None,
    given: str = "",
) -> None:
    """Reject options that are unknown, or that would have no effect on this table.

    Args:
        rows: The runs.
        recipe: The other options.
        laws: Distillation laws as asked for.
        gamma: As asked for: "auto", "free" or a number.
        joint: As asked for.
        given: Source of the supervised law, where it is not fitted.

    Raises:
        InputError: for the first such option.
    """
    _check_laws(rows, laws)
    _check_supervised_law(recipe)
    _check_gamma(recipe, gamma)
    if len(rows):
        _check_pins(rows, recipe)
        _check_asymptote(rows, "fixed", recipe.pins.get("E"))
        _check_asymptote(rows, given, None if recipe.given is None else recipe.given.E)
    if recipe.given is not None and recipe.tied:
        raise InputError("tied sets alpha = beta in the supervised law, which is given here: leave it out")
    if joint is not None and (recipe.given is not None or not rows.n_distillations):
        why = "the supervised law is given" if recipe.given is not None else "the table has no distillations"
        raise InputError(f"joint and separate apply where both laws are fitted, but {why}: leave them out")
    if recipe.objective.standard_errors and not rows.loss_se.any():
        raise InputError("standard_errors needs a column 'loss_se', which the table lacks")


def _check_laws(rows: Rows, laws: Sequence[str] | None) -> None:
    if laws is None:
        return
    for law in law_names(laws):
        coordinates_of(law, UNIT, COORDINATES)
    if not rows.n_distillations:
        raise InputError(
            f"no {laws[0]!r} law can be fitted: the table has no distillations (rows with a teacher's loss); "
            "leave the law out to fit the supervised law alone"
        )


def split_laws(laws: Sequence[str] | None) -> tuple[list[str], list[str] | None]:
    """Return the supervised laws and the distillation laws among names; None where none was asked for."""
    if laws is None:
        return [], None
    names = law_names(laws)
    supervised = [name for name in names if find_kind(name, SUPERVISED_COORDINATES)]
    others = [name for name in names if name not in supervised]
    return supervised, others or None


def one_supervised_law(laws: Sequence[str]) -> str:
    """Return the supervised law to fit, by default the power law.

    Raises:
        InputError: for more than one.
    """
    if len(laws) > 1:
        raise InputError(
            f"a fit has one supervised law, not {len(laws)} ({', '.join(laws)}): compare_laws compares them"
        )
    return laws[0] if laws else POWER_LAW


def _check_supervised_law(recipe: Recipe) -> None:
    """Reject options of the power law under another, and laws that cannot stand on it."""
    kind = recipe.supervised_law
    if recipe.sibling is not None:
        _check_sibling(recipe)
    if recipe.given is not None:
        check_compatible(supervised_kind(recipe.given), recipe.laws)
    if kind == POWER_LAW:
        return
    if recipe.given is not None:
        raise InputError(
            f"the supervised law is given, so that {kind} cannot be fitted: leave one of them out"
        )
    if recipe.tied:
        raise InputError(f"tied sets alpha = beta in the power law, and {kind} is fitted: leave it out")
    check_compatible(kind, recipe.laws)


def _check_sibling(recipe: Recipe) -> None:
    """Reject options that a fit of the map of a sibling's law does not have."""
    assert recipe.sibling is not None
    unusable = {
        "a given supervised law": recipe.given is not None,
        f"the {recipe.supervised_law} law": recipe.supervised_law != POWER_LAW,
        "tied": recipe.tied,
        "priors=False (--no-priors)": not recipe.objective.priors,
        "in_nats (--nats)": recipe.objective.in_nats,
        "fixed E or gamma": bool({"E", "gamma"} & set(recipe.pins)),
    }
    for option, asked in unusable.items():
        if asked:
            raise InputError(
                f"prior {recipe.sibling.name}: three numbers map its supervised law, and {option} does not "
                "go with that: leave one of them out"
            )


def _check_gamma(recipe: Recipe, gamma: str | float) -> None:
    if gamma not in ("auto", "free"):
        try:
            positive = float(gamma) > 0
        except (TypeError, ValueError):
            positive = False
        if not positive:
            raise InputError(f"gamma must be 'auto', 'free' or a positive number, not {gamma!r}")
    if gamma != "auto" and recipe.sibling is not None:
        raise InputError(
            f"gamma = {gamma} applies to a law without a sibling: {recipe.sibling.name} gives it here"
        )
    if gamma != "auto" and recipe.given is not None:
        raise InputError(
            f"gamma = {gamma} applies to a fitted supervised law, which is given here: leave it out"
        )
    if gamma != "auto" and recipe.supervised_law != POWER_LAW:
        raise InputError(f"gamma is a coefficient of the power law, and {recipe.supervised_law} is fitted")
    if gamma != "auto" and "gamma" in recipe.pins:
        raise InputError(f"gamma is given twice: {gamma}, and fixed at {recipe.pins['gamma']:g}")


def _check_pins(rows: Rows, recipe: Recipe) -> None:
    """Reject fixed coefficients that the model does not have."""
    law = next(iter(recipe.laws), None)
    Model(
        rows, law, supervised_law=recipe.supervised_law, given=recipe.given, sibling=recipe.sibling,
        fixed=coordinate_pins(recipe.pins, recipe.supervised_law),
    )  # fmt: skip


def _check_asymptote(rows: Rows, source: str, E: float | Array | None) -> None:
    """Reject an irreducible loss that is not below every loss in the table."""
    lowest = rows.center().lowest_loss
    if E is not None and float(np.ravel(E)[0]) >= lowest:
        raise InputError(f"E = {E:.4g} ({source}) is not below the lowest loss in the table, {lowest:.4g}")


def fix_gamma(recipe: Recipe, gamma: str | float) -> tuple[Recipe, list[str]]:
    """Return the recipe with gamma fixed or free, and a note.

    A number fixes it. "auto" leaves it free under its prior at every number of runs (in 18 public data sets
    it is below 1, median .45; :mod:`fits.checks.heldout.gamma_weight` then weighs 1), and fixes it at 1 where
    the priors are off.
    """
    if recipe.given is not None or recipe.sibling is not None or recipe.supervised_law != POWER_LAW:
        return recipe, []
    if gamma == "free" or "gamma" in recipe.pins:
        return recipe, []
    if gamma == "auto" and recipe.objective.priors:
        return recipe, []
    notes = ["gamma = 1: without priors it is free only if asked for"] if gamma == "auto" else []
    value = 1.0 if gamma == "auto" else float(gamma)
    return replace(recipe, pins={**recipe.pins, "gamma": value}), notes


def fit_jointly_or_separately(
    rows: Rows, recipe: Recipe, joint: bool | None, executor: Executor | None = None
) -> tuple[Recipe, dict[str, Estimate], list[str]]:
    """Fit jointly where the supervised runs do not reject that, else the supervised law alone.

    Returns:
        The recipe that was used, the estimates by law, and a note on the choice.
    """
    if recipe.given is not None:
        return recipe, fit_laws(rows, recipe, executor=executor), _unused_runs_note(rows)
    if not recipe.laws:
        return recipe, fit_laws(rows, recipe, executor=executor), []
    separate = replace(recipe, separate=True)
    if joint is False:
        return separate, fit_laws(rows, separate, executor=executor), []
    estimates = fit_laws(rows, recipe, executor=executor)
    p_value = joint_fit_p_value(rows, recipe, next(iter(estimates.values())))
    if joint or p_value > JOINT_FIT_ALPHA:
        return recipe, estimates, []
    separate = replace(separate, joint_fit_p_value=p_value)
    return separate, fit_laws(rows, separate, executor=executor), rejections(separate)


def rejections(recipe: Recipe) -> list[str]:
    """Return a sentence on the law that the runs reject, if they reject one."""
    if recipe.joint_fit_p_value is None:
        return []
    return [
        "the supervised law is fitted to the supervised runs alone: a joint fit is rejected (p = "
        f"{recipe.joint_fit_p_value:.1g}), so the {recipe.laws[0]} law does not describe the distillations "
        "exactly"
    ]


def _unused_runs_note(rows: Rows) -> list[str]:
    """Return a note on supervised runs that are not used, as their law is given."""
    if not rows.n_supervised:
        return []
    return [f"the supervised law is given: the {rows.n_supervised} supervised runs of the table are not used"]
